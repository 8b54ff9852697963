//! What becomes of a tree that was dumped, and of one that is restored in the foreground.

use super::directory;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use tests::footprint::{Footprint, children};
use tests::host_init::Status;
use tests::hosts::{Host, TwoHosts};
use tests::workload::Workload;
use tests::{place, wait};

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
