//! One tree many times.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tests::hosts::{SOURCE_STATE, TwoHosts};
use tests::scale::scaled;
use tests::workload::SOURCES;
use tests::{place, wait};

#[test]
fn eight_copies_go_on_where_the_original_was() -> Result<()> {
    const COPIES: usize = 8;
    let hosts = TwoHosts::new()?;
    let said = hosts.shared().join("said");
    fs::create_dir(&said)?;
    let script = format!("{SOURCES}/copies.py");
    let size = scaled(32, 4).to_string();
    let argv = ["/usr/bin/python3", &script, &place::text(&said)?, &size];
    let original = hosts.a.spawn(&argv)?;
    all_prove_themselves(&said, 1)?;
    let (pid, count) = (original.pid.to_string(), COPIES.to_string());
    let argv = ["clone", &pid, "--count", &count, "--state", SOURCE_STATE, "--json"];
    let cloned = hosts.a.image_command(&argv)?.success()?;
    all_prove_themselves(&said, COPIES + 1)?;
    let restored = cloned.lines().map(serde_json::from_str::<Value>);
    let restored = restored.collect::<Result<Vec<_>, _>>()?;
    let copies = restored.iter().filter(|event| event["event"] == "restored");
    let copies: Vec<i64> = copies.filter_map(|event| event["pid"].as_i64()).collect();
    ensure!(copies.len() == COPIES, "{cloned}");
    for copy in copies.into_iter().map(i32::try_from) {
        hosts.a.signal(copy?, Signal::SIGKILL)?;
    }
    hosts.a.signal(original.pid, Signal::SIGKILL)?;
    // Neither the first of a namespace nor what it read from is left.
    let left = || hosts.a.run(&["pgrep", "-f", "is-for-another|copies.py"]);
    wait::until(
        wait::PATIENCE,
        || format!("the end of {:?}", left()),
        || Ok(left()?.stdout.is_empty().then_some(())),
    )?;
    let state = hosts.a.run(&["find", SOURCE_STATE, "-name", "clone-*"])?.success()?;
    ensure!(state.is_empty(), "{state} is left");
    Ok(())
}

/// Dumped and brought back where the first ids of a namespace are its own.
const LOW_IDS: &str = "
setsid sleep 600 </dev/null >/dev/null 2>&1 &
tree=$!
test $tree -lt 10 || { echo its id is $tree; exit 1; }
while ! grep -q sleep /proc/$tree/comm; do :; done
$0 dump -D $1/low -t $tree || exit
again=$($0 restore -D $1/low -d --pid-namespace --state $2) || { echo $again; exit 1; }
echo $again
again=$(echo $again | grep -o '[0-9]*' | head -1)
grep NSpid /proc/$again/status
kill -9 $again";

#[test]
fn a_tree_with_the_lowest_ids_comes_back_in_a_namespace() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let (migrate, shared) = (place::program("migrate")?, place::text(hosts.shared())?);
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", LOW_IDS];
    let said = hosts.a.run(&[&namespace[..], &[&migrate, &shared, SOURCE_STATE]].concat())?;
    let said = said.success()?;
    let ids = said.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let own = ids.and_then(|ids| ids.split_whitespace().last()?.parse::<i32>().ok());
    ensure!(own.is_some_and(|own| own < 10), "{said}");
    Ok(())
}

/// Every one in a file of its own, and each of them twice from now on.
pub(super) fn all_prove_themselves(said: &Path, count: usize) -> Result<()> {
    let lines = || -> Result<BTreeMap<PathBuf, usize>> {
        let files = fs::read_dir(said)?.map(|file| {
            let path = file?.path();
            let text = fs::read_to_string(&path)?;
            ensure!(!text.contains("BAD"), "{}: {text}", path.display());
            Ok((path, text.lines().count()))
        });
        files.collect()
    };
    let before = lines()?;
    wait::until(
        wait::PATIENCE,
        || format!("{count} to go on: {:?}", lines()),
        || {
            let now = lines()?;
            let went_on = |(path, lines): (&PathBuf, &usize)| {
                *lines > before.get(path).copied().unwrap_or(0) + 2
            };
            Ok((now.len() == count && now.iter().all(went_on)).then_some(()))
        },
    )
}
