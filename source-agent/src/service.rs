//! The source agent: moves trees for whoever may ask on its control socket, and settles by itself
//! what an agent before it left open.
//!
//! A migration is the same here as in the command: a session with an audience. Only that those who
//! listen may go, and the session stays.

mod desk;
mod door;
mod keeper;
mod roster;

use crate::cli;
use crate::news::News;
use crate::output::print;
use anyhow::Result;
use door::Door;
use roster::Roster;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How often journals are looked at that a killed command may have left.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// For moves to be cancelled when the agent is to end. What is in doubt stays so, and still.
const STOP_WAIT: Duration = Duration::from_secs(5);
const STOP_TICK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Service {
    options: cli::Service,
    roster: Roster,
}

/// Until a signal ends it.
pub(crate) async fn run(options: cli::Service) -> Result<()> {
    let door = Door::open(&options.socket)?;
    let service = Arc::new(Service { options, roster: Roster::default() });
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    print(&format!("listening on {}", service.options.socket.display()));
    loop {
        tokio::select! {
            stream = door.accept() => {
                let service = Arc::clone(&service);
                tokio::spawn(async move { service.serve(stream).await });
            }
            _ = look.tick() => service.take_up_what_is_open(),
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
        }
    }
    service.stop().await;
    Ok(())
}

impl Service {
    /// Cancels what can be cancelled.
    async fn stop(&self) {
        self.roster.tell_all(|| News::Stop);
        let end = Instant::now() + STOP_WAIT;
        while self.roster.has_cancellable() && Instant::now() < end {
            sleep(STOP_TICK).await;
        }
    }
}
