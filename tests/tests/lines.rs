//! Bad lines between the hosts: slow, lossy, cut in mid-copy; and an operator who changes his mind.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tests::attempt::Attempt;
use tests::hosts::{RELAY_ADDRESS, TwoHosts};
use tests::moved::exit;
use tests::relay::{Conditions, Relay};
use tests::workload::Workload;

fn relay(hosts: &TwoHosts) -> Result<Relay> {
    Relay::start(hosts, &hosts.a, &format!("{RELAY_ADDRESS}:9999"), "192.0.2.2:7747", 1)
}

const THROUGH_THE_RELAY: &str = "192.0.2.9:9999";

fn moves_over(conditions: &Conditions, options: &[&str]) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let relay = relay(&hosts)?;
    relay.set(conditions)?;
    let workload = Workload::start(&hosts.a, "writer", &["8"])?;
    let command = hosts.start_migrate(workload.pid, &hosts.a, THROUGH_THE_RELAY, options)?;
    let moved = hosts.finish_migrate(&hosts.a, &command)?.success()?;
    workload.proves_itself(&hosts.b).with_context(|| moved.story())?;
    workload.stop(&hosts.b)
}

#[test]
fn a_move_ends_over_a_line_with_delay() -> Result<()> {
    moves_over(&Conditions { delay_ms: 25, ..Conditions::default() }, &[])
}

#[test]
fn a_move_ends_over_a_line_with_loss() -> Result<()> {
    moves_over(&Conditions { loss_permille: 20, ..Conditions::default() }, &[])
}

#[test]
fn a_writer_faster_than_the_line_moves_all_the_same() -> Result<()> {
    let slow = Conditions { bytes_per_s: 4_000_000, delay_ms: 2, ..Conditions::default() };
    moves_over(&slow, &[])?;
    moves_over(&slow, &["--lazy", "never"])
}

/// So slow that the test can do something in the middle of it.
fn begin<'hosts>(
    hosts: &'hosts TwoHosts,
    workload: &Workload,
    to: &str,
) -> Result<Attempt<'hosts>> {
    let attempt = Attempt::begin(hosts, workload.pid, to, &["--bandwidth", "40"])?;
    attempt.is_in("rounds")?;
    Ok(attempt)
}

/// It goes on where it is, and nowhere else.
fn stays(attempt: &Attempt<'_>, workload: &Workload) -> Result<()> {
    workload.proves_itself(&attempt.hosts.a)?;
    attempt.leaves_nothing_on_b()?;
    workload.stop(&attempt.hosts.a)
}

#[test]
fn a_cut_in_mid_copy_leaves_the_process_on_the_source() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let relay = relay(&hosts)?;
    let workload = Workload::start(&hosts.a, "writer", &["64"])?;
    let attempt = begin(&hosts, &workload, THROUGH_THE_RELAY)?;
    relay.cut()?;
    let moved = attempt.ends_with(exit::FAILED)?;
    stays(&attempt, &workload).with_context(|| moved.story())
}

#[test]
fn a_short_cut_in_mid_copy_is_outlived() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let relay = relay(&hosts)?;
    let workload = Workload::start(&hosts.a, "writer", &["16"])?;
    let attempt = begin(&hosts, &workload, THROUGH_THE_RELAY)?;
    relay.cut()?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    relay.heal()?;
    let moved = attempt.finish()?.success()?;
    workload.proves_itself(&hosts.b).with_context(|| moved.story())?;
    workload.stop(&hosts.b)
}

#[test]
fn ctrl_c_in_mid_copy_leaves_the_process_on_the_source() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "writer", &["64"])?;
    let attempt = begin(&hosts, &workload, "hostb")?;
    attempt.signal(Signal::SIGINT)?;
    let moved = attempt.ends_with(exit::CANCELLED)?;
    stays(&attempt, &workload).with_context(|| moved.story())
}

#[test]
fn a_killed_command_leaves_the_process_on_the_source() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "writer", &["64"])?;
    let attempt = begin(&hosts, &workload, "hostb")?;
    attempt.is_killed()?;
    attempt.is_as_it_was()?;
    stays(&attempt, &workload)
}
