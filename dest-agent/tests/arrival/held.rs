//! Trees that something happens to between being ready and running.

use crate::program::Program;
use crate::recorded::Memory;
use crate::{Result, Scene, outcome};
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::message::Outcome;

/// As if it had been killed an instant after the permit: that is its end, and no doubt.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_it_waits_for_the_permit_has_come_and_ended() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.make_ready().await?;
    kill(Pid::from_raw(scene.program.pid()), Signal::SIGKILL)?;
    scene.source.handover().await?;
    assert_eq!(outcome(&scene.source.expect("Decided").await?), Some(Outcome::Running));
    scene.source.expect("Complete").await?;
    scene.source.done().await?;
    scene.source.vanish();
    scene.program.is_gone()
}

/// The image of a real-time timer that has a microsecond left.
const RINGS_AT_ONCE: [u8; 4] = [0x0a, 2, 0x08, 1];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_timer_sends_while_its_program_is_built_arrives() -> Result {
    for _ in 0..3 {
        let mut scene = Scene::of(Program::ticking()?, Memory::AllAtOnce).await?;
        for process in &mut scene.recorded.image.processes {
            process.pending_signals.clear();
            process.threads.iter_mut().for_each(|thread| thread.pending_signals.clear());
            let timers = process.aspects.iter_mut().find(|a| a.name == "interval timers");
            timers.context("its timers")?.bytes = RINGS_AT_ONCE.to_vec();
        }
        scene.make_ready().await?;
        scene.source.handover().await?;
        scene.source.expect("Complete").await?;
        scene.program.goes_on()?;
    }
    Ok(())
}
