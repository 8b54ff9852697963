//! Bad lines between the hosts: slow, lossy, cut in mid-copy; and an operator who changes his mind.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use tests::footprint::Footprint;
use tests::hosts::{RELAY_ADDRESS, Started, TwoHosts};
use tests::moved::exit;
use tests::relay::{Conditions, Relay};
use tests::wait;
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

/// A move that is so slow that the test can do something in the middle of it.
fn begin(hosts: &TwoHosts, workload: &Workload, to: &str) -> Result<Started> {
    let options = ["--bandwidth", "40"];
    let command = hosts.start_migrate(workload.pid, &hosts.a, to, &options)?;
    wait::until(
        wait::PATIENCE,
        || "the copy to begin".into(),
        || Ok(fs::read_to_string(&command.stdout)?.contains("\"rounds\"").then_some(())),
    )?;
    Ok(command)
}

/// As if nobody had asked: on the source as it was, and not on the destination.
fn is_untouched(hosts: &TwoHosts, workload: &Workload, before: &Footprint) -> Result<()> {
    before.expect_again(&hosts.a, workload.pid)?;
    workload.proves_itself(&hosts.a)?;
    wait::until(
        wait::PATIENCE,
        || "the stub on hostb to go".into(),
        || Ok((!hosts.b.exists(workload.pid)).then_some(())),
    )?;
    workload.stop(&hosts.a)
}

#[test]
fn a_cut_in_mid_copy_leaves_the_process_on_the_source() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let relay = relay(&hosts)?;
    let workload = Workload::start(&hosts.a, "writer", &["64"])?;
    let before = Footprint::settled(&hosts.a, workload.pid)?;
    let command = begin(&hosts, &workload, THROUGH_THE_RELAY)?;
    relay.cut()?;
    let moved = hosts.finish_migrate(&hosts.a, &command)?;
    ensure!(moved.exit == exit::FAILED, "{}", moved.story());
    is_untouched(&hosts, &workload, &before).with_context(|| moved.story())
}

#[test]
fn a_short_cut_in_mid_copy_is_outlived() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let relay = relay(&hosts)?;
    let workload = Workload::start(&hosts.a, "writer", &["16"])?;
    let command = begin(&hosts, &workload, THROUGH_THE_RELAY)?;
    relay.cut()?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    relay.heal()?;
    let moved = hosts.finish_migrate(&hosts.a, &command)?.success()?;
    workload.proves_itself(&hosts.b).with_context(|| moved.story())?;
    workload.stop(&hosts.b)
}

#[test]
fn ctrl_c_in_mid_copy_leaves_the_process_on_the_source() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "writer", &["64"])?;
    let before = Footprint::settled(&hosts.a, workload.pid)?;
    let command = begin(&hosts, &workload, "hostb")?;
    hosts.a.signal(command.pid, Signal::SIGINT)?;
    let moved = hosts.finish_migrate(&hosts.a, &command)?;
    ensure!(moved.exit == exit::CANCELLED, "{}", moved.story());
    is_untouched(&hosts, &workload, &before).with_context(|| moved.story())
}

#[test]
fn a_killed_command_leaves_the_process_on_the_source() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "writer", &["64"])?;
    let before = Footprint::settled(&hosts.a, workload.pid)?;
    let command = begin(&hosts, &workload, "hostb")?;
    hosts.a.signal(command.pid, Signal::SIGKILL)?;
    hosts.a.end_of(command.pid, wait::PATIENCE)?;
    is_untouched(&hosts, &workload, &before)
}
