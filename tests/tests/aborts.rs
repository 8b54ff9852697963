//! Moves that fail when the tree already stands still: it goes on where it stood, as if nothing had
//! been asked, and the next try succeeds.

use anyhow::{Context, Result, ensure};
use std::fs;
use tests::hosts::{CONFIG, SOURCE_STATE, TwoHosts};
use tests::workload::Workload;
use tests::{place, wait};

macro_rules! aborts {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn goes_on_after_moves_that_fail_in_the_freeze() -> anyhow::Result<()> {
                super::goes_on(stringify!($name))
            }
        }
    )* };
}

// Those with something queued, in flight, or half-way through a system call.
aborts! {
    blocked,
    interrupted,
    pipe,
    socketpair,
    tcp_states,
    udp_connected,
    unix_datagram,
    unix_flight,
    unix_listen,
    unix_pair,
}

/// After the freeze, after the capture, and when its connections are silent and its addresses given.
const PLACES: &[&str] =
    &["source.freeze.after", "source.capture.after", "source.give-addresses.after"];

fn goes_on(name: &str) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, name, &[])?;
    for place in PLACES {
        workload.proves_itself(&hosts.a)?;
        fails_at(&hosts, &workload, place).with_context(|| format!("to fail at {place}"))?;
        workload.proves_itself(&hosts.a).with_context(|| format!("after {place}"))?;
    }
    hosts.migrate(workload.pid, &hosts.a, &hosts.b, &[])?.success()?;
    workload.proves_itself(&hosts.b)?;
    workload.stop(&hosts.b)
}

fn fails_at(hosts: &TwoHosts, workload: &Workload, at: &str) -> Result<()> {
    let reached = hosts.shared().join(at);
    let (migrate, pid) = (place::program("migrate")?, workload.pid.to_string());
    let plan = format!("{at}=ENOMEM:{}", reached.display());
    let mut argv = vec![migrate.as_str(), &pid, "--to", "hostb", "--config", CONFIG];
    argv.extend(["--state", SOURCE_STATE]);
    let command = hosts.a.spawn_with(&argv, &[("MIGRATE_FAIL", &plan)])?;
    let status = hosts.a.end_of(command.pid, wait::PATIENCE)?;
    let said = fs::read_to_string(&command.stderr)?;
    ensure!(reached.exists(), "it ended with {status:?} before: {said}");
    Ok(())
}
