//! The workloads where nothing moves: each proves itself to its end, and each notices when its
//! object is spoilt. A workload that cannot say BAD would prove nothing after a move.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::time::Duration;
use tests::build::Build;
use tests::host_init::Status;
use tests::hosts::TwoHosts;
use tests::redis::server::{self, RunningWriter};
use tests::workload::{SOURCES, Workload};
use tests::{place, wait};

macro_rules! workloads {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn proves_itself_unmoved() -> anyhow::Result<()> {
                super::proves_itself(stringify!($name))
            }

            #[test]
            fn notices_when_its_object_is_spoilt() -> anyhow::Result<()> {
                super::notices(stringify!($name))
            }
        }
    )* };
}

tests::every_workload! { workloads }

fn proves_itself(name: &str) -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, name, &[])?;
    for _ in 0..4 {
        workload.proves_itself(&hosts.a)?;
    }
    workload.stop(&hosts.a)
}

fn notices(name: &str) -> Result<()> {
    let hosts = TwoHosts::new()?;
    let spoilt = Workload::start_with(&hosts.a, name, &[], &[("PROVE_SPOIL", "1")])?;
    let status = hosts.a.end_of(spoilt.pid, wait::PATIENCE)?;
    let said = spoilt.said()?;
    ensure!(status == Status::Exited(1), "{name} ended with {status:?}: {said}");
    ensure!(said.contains("\nBAD "), "{name} says {said}");
    Ok(())
}

#[test]
fn a_heartbeat_reports_its_largest_gap_and_verifies_its_memory() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let heart = Workload::start(&hosts.a, "heartbeat", &["16"])?;
    // Stopped for 300 ms: a gap that it must see in both clocks.
    hosts.a.signal(heart.pid, Signal::SIGSTOP)?;
    std::thread::sleep(Duration::from_millis(300));
    hosts.a.signal(heart.pid, Signal::SIGCONT)?;
    hosts.a.signal(heart.pid, Signal::SIGUSR2)?;
    let report = wait::until(
        wait::PATIENCE,
        || format!("{:?}", heart.said()),
        || {
            let report = tests::heartbeat::last_report(&heart.said()?);
            Ok(report.filter(|report| report.verified == 1 && report.max_gap_us >= 300_000))
        },
    )?;
    assert_eq!(report.bad_word, -1);
    assert!(report.max_gap_monotonic_us >= 300_000, "{report:?}");
    hosts.a.signal(heart.pid, Signal::SIGTERM)?;
    assert_eq!(hosts.a.end_of(heart.pid, wait::PATIENCE)?, Status::Exited(0));
    Ok(())
}

#[test]
fn a_heartbeat_notices_spoilt_memory() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let heart = Workload::start_with(&hosts.a, "heartbeat", &["1"], &[("PROVE_SPOIL", "1")])?;
    hosts.a.signal(heart.pid, Signal::SIGTERM)?;
    assert_eq!(hosts.a.end_of(heart.pid, wait::PATIENCE)?, Status::Exited(1));
    Ok(())
}

#[test]
fn the_python_tree_proves_itself_unmoved() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let script = format!("{SOURCES}/pytree.py");
    let tree = Workload::start_program(&hosts.a, "python", &["/usr/bin/python3", &script], &[])?;
    tree.proves_itself(&hosts.a)?;
    tree.stop(&hosts.a)?;
    let spoilt = hosts.a.run(&["/usr/bin/python3", &script, "--spoil"])?;
    assert_eq!(spoilt.stdout, "ready\nBAD spoilt\n");
    Ok(())
}

#[test]
fn a_build_completes_again_and_again() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let build = Build::start(&hosts, &hosts.a)?;
    build.completes_another(&hosts.a)?;
    build.stop(&hosts.a)
}

#[test]
fn the_redis_client_notices_a_server_that_lost_its_data() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let redis = server::start(&hosts, &hosts.a)?;
    server::client(&hosts.a, &hosts.a, &["fill", "100", "1000"])?;
    server::client(&hosts.a, &hosts.a, &["verify", "100", "1000"])?;
    let writer = RunningWriter::start(&hosts, &hosts.b)?;
    writer.goes_on()?;
    hosts.a.signal(redis.pid, Signal::SIGKILL)?;
    hosts.a.end_of(redis.pid, wait::PATIENCE)?;
    server::start(&hosts, &hosts.b)?;
    writer.goes_on()?;
    let (report, _) = writer.stop(&hosts.b)?;
    assert!(report.errors > 0 && report.reconnects == 2, "{report:?}");
    let lost = server::client(&hosts.a, &hosts.b, &["verify", "100", "1000"]).unwrap_err();
    assert!(format!("{lost:#}").contains("filled:0 has another value"), "{lost:#}");
    // The writer has raised most counters anew since; one that it did not has to be made by hand.
    let ledger = place::text(&writer.ledger)?;
    hosts.b.run(&["redis-cli", "del", "counter:7"])?.success()?;
    let lost = server::client(&hosts.a, &hosts.b, &["audit", &ledger]).unwrap_err();
    assert!(format!("{lost:#}").contains("was acknowledged, it has 0"), "{lost:#}");
    Ok(())
}
