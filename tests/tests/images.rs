//! Every workload into a directory and back: to another host with all of its memory, and back again
//! before its memory was read, from an increment.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tests::footprint::{Footprint, children};
use tests::host_init::Status;
use tests::hosts::{Host, SOURCE_STATE, TwoHosts};
use tests::moved::exit;
use tests::scale::scaled;
use tests::workload::{self, SOURCES, Workload};
use tests::{place, wait};

macro_rules! comes_back {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn comes_back_from_a_directory() -> anyhow::Result<()> {
                super::there_and_back(stringify!($name))
            }
        }
    )* };
}

tests::every_workload! { comes_back }

fn there_and_back(name: &str) -> Result<()> {
    let hosts = TwoHosts::new()?;
    workload::make_ready(&hosts.a)?;
    workload::make_ready(&hosts.b)?;
    let workload = Workload::start(&hosts.a, name, &[])?;
    workload.proves_itself(&hosts.a)?;
    let first = directory(&hosts, "first")?;
    let second = directory(&hosts, "second")?;
    go(&workload, &hosts.a, &hosts.b, &first, [&[], &[]]).context("there")?;
    let increment = ["--parent", first.as_str()];
    go(&workload, &hosts.b, &hosts.a, &second, [&increment, &["--lazy"]]).context("back")?;
    workload.stop(&hosts.a)
}

fn directory(hosts: &TwoHosts, name: &str) -> Result<String> {
    place::text(&hosts.shared().join(name))
}

/// `options` of the dump and of the restore.
fn go(
    workload: &Workload,
    from: &Host,
    to: &Host,
    directory: &str,
    options: [&[&str]; 2],
) -> Result<()> {
    from.dump(workload.pid, directory, options[0])?.success().context("dump")?;
    from.end_of(workload.pid, wait::PATIENCE)?;
    to.restore(directory, options[1])?.success().context("restore")?;
    workload.proves_itself(to)
}

#[test]
fn ten_times_in_a_row() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "writer", &["16"])?;
    for round in 0..10 {
        let directory = directory(&hosts, &round.to_string())?;
        let lazy: &[&str] = if round % 2 == 0 { &["--lazy"] } else { &[] };
        go(&workload, &hosts.a, &hosts.a, &directory, [&[], lazy])
            .with_context(|| format!("round {round}"))?;
    }
    workload.stop(&hosts.a)
}

#[test]
fn a_dump_can_leave_it_running_as_it_was() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "threads", &["20"])?;
    let before = Footprint::settled(&hosts.a, workload.pid)?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(workload.pid, &directory, &["--leave-running"])?.success()?;
    workload.proves_itself(&hosts.a)?;
    before.expect_again(&hosts.a, workload.pid)?;
    workload.stop(&hosts.a)
}

#[test]
fn one_image_is_restored_on_two_hosts() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let sleep = hosts.a.spawn(&["/bin/sleep", "600"])?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(sleep.pid, &directory, &[])?.success()?;
    hosts.a.end_of(sleep.pid, wait::PATIENCE)?;
    for host in [&hosts.a, &hosts.b] {
        host.restore(&directory, &[])?.success()?;
    }
    for host in [&hosts.a, &hosts.b] {
        ensure!(host.exists(sleep.pid), "it is not on {}", host.name());
        host.signal(sleep.pid, Signal::SIGKILL)?;
    }
    Ok(())
}

#[test]
fn a_dump_can_leave_it_stopped() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "tree", &[])?;
    hosts.a.dump(workload.pid, &directory(&hosts, "image")?, &["--leave-stopped"])?.success()?;
    wait::until(
        wait::PATIENCE,
        || "it to be stopped".into(),
        || {
            let stat = hosts.a.read(&format!("/proc/{}/stat", workload.pid))?;
            Ok(stat.contains(") T ").then_some(()))
        },
    )?;
    let_go_on(&hosts.a, workload.pid)?;
    workload.proves_itself(&hosts.a)?;
    workload.stop(&hosts.a)
}

/// With all of its descendants.
fn let_go_on(host: &Host, pid: i32) -> Result<()> {
    children(host, pid)?.into_iter().try_for_each(|child| let_go_on(host, child))?;
    host.signal(pid, Signal::SIGCONT)
}

#[test]
fn in_the_foreground_it_gets_our_signals_and_its_end_is_ours() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let shell = hosts.a.spawn(&["/bin/sh", "-c", script])?;
    wait::until(
        wait::PATIENCE,
        || "the shell".into(),
        || Ok(fs::read_to_string(&shell.stdout)?.contains("ready").then_some(())),
    )?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(shell.pid, &directory, &[])?.success()?;
    hosts.a.end_of(shell.pid, wait::PATIENCE)?;
    for lazy in [None, Some("--lazy")] {
        let migrate = place::program("migrate")?;
        let argv = [migrate.as_str(), "restore", "-D", &directory];
        let restore = hosts.b.spawn(&[&argv, lazy.as_slice()].concat())?;
        wait::until(
            wait::PATIENCE,
            || "it to run".into(),
            || Ok(fs::read_to_string(&restore.stdout)?.contains("runs again").then_some(())),
        )?;
        hosts.b.signal(restore.pid, Signal::SIGTERM)?;
        let ended = hosts.b.end_of(restore.pid, wait::PATIENCE)?;
        ensure!(ended == Status::Exited(7), "restore ended with {ended:?}: {}", restore.story());
        ensure!(!hosts.b.exists(shell.pid), "it is still there");
    }
    Ok(())
}

/// Whoever brings the pages is killed: nobody may read zeros instead.
#[test]
fn a_tree_dies_with_whoever_brings_its_pages() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "writer", &[&scaled(512, 64).to_string()])?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(workload.pid, &directory, &[])?.success()?;
    hosts.a.end_of(workload.pid, wait::PATIENCE)?;
    let migrate = place::program("migrate")?;
    let restore = hosts.b.spawn(&[&migrate, "restore", "-D", &directory, "--lazy"])?;
    wait::until(
        wait::PATIENCE,
        || "it to run".into(),
        || {
            let story = restore.story();
            ensure!(hosts.b.exists(restore.pid), "it ended: {story}");
            Ok(story.contains("runs again").then_some(()))
        },
    )?;
    hosts.b.signal(restore.pid, Signal::SIGKILL)?;
    wait::until(
        wait::PATIENCE,
        || "its end".into(),
        || Ok((!hosts.b.exists(workload.pid)).then_some(())),
    )?;
    let said = workload.said()?;
    ensure!(!said.contains("bad") && !said.contains("BAD"), "it read something else: {said}");
    Ok(())
}

/// What goes wrong is said, the process runs on as if nobody had asked, and nothing is left.
fn dump_fails(
    name: &str,
    options: &[&str],
    spoil: impl Fn(&Host, &Path) -> Result<()>,
    why: &str,
) -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let before = Footprint::settled(&hosts.a, workload.pid)?;
    let directory = hosts.shared().join(name);
    spoil(&hosts.a, &directory)?;
    let output = hosts.a.dump(workload.pid, &place::text(&directory)?, options)?;
    ensure!(output.status == Status::Exited(exit::FAILED), "{output:?}");
    ensure!(output.stdout.contains(why), "{output:?}");
    ensure!(!directory.join("manifest").exists() || name == "taken", "there is an image");
    before.expect_again(&hosts.a, workload.pid)?;
    workload.proves_itself(&hosts.a)?;
    workload.stop(&hosts.a)
}

#[test]
fn a_full_disk_fails_a_dump() -> Result<()> {
    let small = |host: &Host, directory: &Path| {
        fs::create_dir(directory)?;
        let path = place::text(directory)?;
        host.run(&["mount", "-t", "tmpfs", "-o", "size=64k", "none", &path])?.success().map(drop)
    };
    dump_fails("full", &["--compress", "none"], small, "No space left on device")
}

#[test]
fn a_directory_that_cannot_be_written_fails_a_dump() -> Result<()> {
    let read_only = |host: &Host, directory: &Path| {
        fs::create_dir(directory)?;
        let path = place::text(directory)?;
        host.run(&["mount", "-t", "tmpfs", "-o", "ro", "none", &path])?.success().map(drop)
    };
    dump_fails("read-only", &[], read_only, "Read-only file system")
}

#[test]
fn an_image_that_is_there_fails_a_dump() -> Result<()> {
    let taken = |_: &Host, directory: &Path| {
        fs::create_dir(directory)?;
        Ok(fs::write(directory.join("manifest"), "an image")?)
    };
    dump_fails("taken", &[], taken, "holds an image already")
}

#[test]
fn a_parent_that_is_gone_fails_a_dump() -> Result<()> {
    dump_fails("orphan", &["--parent", "/no/such/image"], |_, _| Ok(()), "/no/such/image")
}

#[test]
fn what_stands_against_a_restore_is_said_at_once_and_nothing_is_started() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let sleep = hosts.a.spawn(&["/bin/sleep", "600"])?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(sleep.pid, &directory, &["--leave-running"])?.success()?;
    // Its ids are taken: by itself.
    let taken = hosts.a.restore(&directory, &[])?;
    ensure!(taken.status == Status::Exited(exit::REFUSED), "{taken:?}");
    ensure!(taken.stdout.contains(&format!("process {}", sleep.pid)), "{taken:?}");
    ensure!(hosts.a.exists(sleep.pid), "it is gone");
    hosts.a.signal(sleep.pid, Signal::SIGKILL)?;
    // Damaged: no part of it may run.
    for (file, at) in [("manifest", 40), ("tree", 200), ("index", 60), ("pages", 5000)] {
        let path = Path::new(&directory).join(file);
        let whole = fs::read(&path)?;
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged)?;
        let output = hosts.b.restore(&directory, &[])?;
        ensure!(output.status == Status::Exited(exit::FAILED), "{file}: {output:?}");
        ensure!(output.stdout.contains(file), "{file}: {output:?}");
        ensure!(!hosts.b.exists(sleep.pid), "{file}: a part of it is there");
        fs::write(&path, &whole)?;
    }
    hosts.b.restore(&directory, &[])?.success()?;
    hosts.b.signal(sleep.pid, Signal::SIGKILL)
}

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

/// Every one in a file of its own, and each of them twice from now on.
fn all_prove_themselves(said: &Path, count: usize) -> Result<()> {
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
