//! While a tree is copied, both agents keep to half of the processors, and nobody whom they start does:
//! neither the hooks nor the tree.

use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::{fs, thread};
use tests::hosts::{Host, TwoHosts};
use tests::workload::Workload;
use tests::{say, wait};

const MIB: &str = "64";
/// Slow enough to be looked at: two seconds for that much.
const SLOW: &[&str] = &["--bandwidth", "250", "--compress", "none"];

/// What the threads of a process may run on, each list once.
fn processors_of(host: &Host, pid: i32) -> Result<BTreeSet<String>> {
    let script = format!("grep -h Cpus_allowed_list /proc/{pid}/task/*/status | cut -f2");
    let lists = host.run(&["sh", "-c", &script])?.success()?;
    Ok(lists.lines().map(str::to_owned).collect())
}

fn comes_to_keep(host: &Host, pid: i32, to: &str) -> Result<()> {
    let wanted = BTreeSet::from([to.to_owned()]);
    wait::until(
        wait::PATIENCE,
        || format!("{pid} on {} to keep to {to}", host.name()),
        || Ok((processors_of(host, pid)? == wanted).then_some(())),
    )
}

#[test]
fn agents_keep_to_half_and_what_they_start_does_not() -> Result<()> {
    if thread::available_parallelism()?.get() != 2 {
        let why = "the halves are written down for two processors";
        return Ok(say::skip("agents_keep_to_half_and_what_they_start_does_not", why)?);
    }
    let hosts = TwoHosts::with_agents()?;
    let said = hosts.shared().join("hooks");
    for (host, point) in [(&hosts.a, "before-freeze"), (&hosts.b, "expect"), (&hosts.b, "running")]
    {
        let path = format!("/etc/migrate/hooks/{point}");
        let tells = "$(grep Cpus_allowed_list /proc/self/status | cut -f2) $(nice)";
        let text = format!("#!/bin/sh\necho {point} {tells} >> {}\n", said.display());
        host.write(&path, &text)?;
        host.run(&["chmod", "755", &path])?.success()?;
    }
    let heart = Workload::start(&hosts.a, "heartbeat", &[MIB])?;
    let command = hosts.start_migrate(heart.pid, &hosts.a, hosts.b.name(), SLOW)?;
    let receiver = hosts.agent_pids()[1];
    comes_to_keep(&hosts.a, command.pid, "1")?;
    comes_to_keep(&hosts.b, receiver, "0")?;
    let staged = processors_of(&hosts.b, heart.pid)?;
    ensure!(staged == BTreeSet::from(["0-1".to_owned()]), "the staged tree has {staged:?}");

    hosts.finish_migrate(&hosts.a, &command)?.success()?;
    comes_to_keep(&hosts.b, receiver, "0-1")?;
    comes_to_keep(&hosts.b, heart.pid, "0-1")?;
    let said = wait::until(
        wait::PATIENCE,
        || "the hook running".into(),
        || Ok(Some(fs::read_to_string(&said)?).filter(|said| said.contains("running"))),
    )?;
    ensure!(said == "expect 0-1 0\nbefore-freeze 0-1 0\nrunning 0-1 0\n", "{said}");
    Ok(())
}
