//! Newcomers, one after the other: each connects, sends nothing, and is told that this was all.

use super::{Client, Direction};
use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// So short that some come in every freeze.
const PAUSE: Duration = Duration::from_millis(5);

/// Lets one in after the other, at these servers in turn, until `is_over`. They do not wait for each
/// other. Returns how many there were; an error when one was not served.
pub fn visit(servers: &[String], is_over: &AtomicBool) -> Result<usize> {
    thread::scope(|scope| {
        let mut visitors = Vec::new();
        for server in servers.iter().cycle() {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            visitors.push(scope.spawn(|| one(server)));
            thread::sleep(PAUSE);
        }
        let count = visitors.len();
        let ends = visitors.into_iter().map(|one| one.join().ok().context("it panicked")?);
        ends.collect::<Result<()>>().map(|()| count)
    })
}

fn one(server: &str) -> Result<()> {
    let client = Client::connect(server, |_| Ok(()))?;
    client.run(Direction::Upload, &AtomicBool::new(true))
}
