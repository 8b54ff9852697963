//! What happens to either end while a move is under way and not yet handed over: the process ends,
//! somebody traces it, the destination dies. A fake destination holds the move at one message until
//! the test has done its deed, so that nothing depends on who is faster.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::attempt::Attempt;
use tests::host_init::Status;
use tests::hosts::TwoHosts;
use tests::moved::exit;
use tests::peer::FakeDestination;
use tests::wait;
use tests::workload::Workload;

const GATE: &str = "go-on";

/// A move of a process that stands still at the moment when `hostb` has heard `message`.
fn held<'hosts>(
    hosts: &'hosts TwoHosts,
    workload: &Workload,
    message: &str,
) -> Result<Attempt<'hosts>> {
    hosts.introduce()?;
    let character = ["--waits-at", message, "--until", GATE];
    let fake = FakeDestination::start(&hosts.b, &character)?;
    let attempt = Attempt::begin(hosts, workload.pid, "hostb", &[])?;
    fake.hears(&hosts.b, message)?;
    Ok(attempt)
}

fn let_go(hosts: &TwoHosts) -> Result<()> {
    Ok(std::fs::write(hosts.shared().join(GATE), "")?)
}

fn ends_in_mid_copy(message: &str) -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "writer", &["4"])?;
    let attempt = held(&hosts, &workload, message)?;
    hosts.a.signal(workload.pid, Signal::SIGKILL)?;
    let_go(&hosts)?;
    let moved = attempt.finish()?;
    ensure!([exit::REFUSED, exit::FAILED].contains(&moved.exit), "{}", moved.story());
    moved.expect_names(&[&workload.pid.to_string()])?;
    let end = hosts.a.end_of(workload.pid, wait::PATIENCE)?;
    ensure!(end == Status::Killed(9), "{end:?}: {}", moved.story());
    Ok(())
}

fn is_traced_in_mid_copy(message: &str) -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "writer", &["4"])?;
    let attempt = held(&hosts, &workload, message)?;
    let tracer = Workload::start(&hosts.a, "tracer", &[&workload.pid.to_string()])?;
    let_go(&hosts)?;
    let moved = attempt.finish()?;
    ensure!(moved.exit == exit::FAILED, "{}", moved.story());
    moved.expect_names(&[&format!("process {} (tracer) traces", tracer.pid), "runs_on source"])?;
    // The tracer keeps what it has, and without it the process is as it was.
    ensure!(hosts.a.exists(tracer.pid), "{}", moved.story());
    workload.proves_itself(&hosts.a).with_context(|| moved.story())?;
    hosts.a.signal(tracer.pid, Signal::SIGKILL)?;
    attempt.is_as_it_was().with_context(|| moved.story())?;
    workload.stop(&hosts.a)
}

fn destination_dies(message: &str) -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    FakeDestination::start(&hosts.b, &["--dies-at", message])?;
    let workload = Workload::start(&hosts.a, "writer", &["4"])?;
    let moved = Attempt::begin(&hosts, workload.pid, "hostb", &[])?.ends_with(exit::FAILED)?;
    workload.proves_itself(&hosts.a).with_context(|| moved.story())?;
    workload.stop(&hosts.a)
}

macro_rules! at {
    ($($moment:ident $message:literal $($deed:ident)*;)*) => { $(
        mod $moment {
            $(
                #[test]
                fn $deed() -> anyhow::Result<()> {
                    super::$deed($message)
                }
            )*
        }
    )* };
}

at! {
    greeting "Hello" ends_in_mid_copy is_traced_in_mid_copy destination_dies;
    offering "Offer" ends_in_mid_copy is_traced_in_mid_copy destination_dies;
    staging "Stage" ends_in_mid_copy is_traced_in_mid_copy destination_dies;
    copying "RoundBegin" ends_in_mid_copy is_traced_in_mid_copy destination_dies;
    landing "RoundEnd" ends_in_mid_copy is_traced_in_mid_copy destination_dies;
    // Frozen: only the kernel can still take it away, and nobody else can trace it.
    building "Image" ends_in_mid_copy destination_dies;
}

/// The real agent takes what it has staged along when it dies.
fn agent_dies_in(phase: &str, options: &[&str]) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "writer", &["32"])?;
    let attempt = Attempt::begin(&hosts, workload.pid, "hostb", options)?;
    attempt.is_in(phase)?;
    hosts.kill_agent(&hosts.b)?;
    let moved = attempt.ends_with(exit::FAILED)?;
    attempt.leaves_nothing_on_b().with_context(|| moved.story())?;
    workload.proves_itself(&hosts.a).with_context(|| moved.story())?;
    workload.stop(&hosts.a)
}

/// 32 MiB at 8 Mbit/s: half a minute, and the agent dies at its beginning.
#[test]
fn the_agent_dies_in_a_round() -> Result<()> {
    agent_dies_in("rounds", &["--bandwidth", "8"])
}

#[test]
fn the_agent_dies_in_the_freeze() -> Result<()> {
    agent_dies_in("final", &["--bandwidth", "8", "--lazy", "never", "--max-rounds", "1"])
}

/// A process that ends leaves no stub behind.
#[test]
fn a_process_that_ends_takes_its_stub_along() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "writer", &["32"])?;
    let attempt = Attempt::begin(&hosts, workload.pid, "hostb", &["--bandwidth", "8"])?;
    attempt.is_in("rounds")?;
    hosts.a.signal(workload.pid, Signal::SIGKILL)?;
    let moved = attempt.finish()?;
    ensure!(moved.exit == exit::FAILED, "{}", moved.story());
    moved.expect_names(&[&workload.pid.to_string(), "runs_on nowhere"])?;
    attempt.leaves_nothing_on_b()
}
