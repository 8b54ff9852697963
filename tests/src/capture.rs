//! A packet capture: what passes the interfaces of a host, one line of JSON a packet.

mod packet;
mod running;

pub use packet::{Packet, Transport, flag};
pub use running::RunningCapture;

use crate::frames::{self, Frames};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

/// A packet on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Since 1970, in microseconds.
    pub at_us: u64,
    /// Its name.
    pub interface: String,
    /// This host has sent it.
    pub is_outgoing: bool,
    pub packet: Packet,
}

/// Looks for the end so often when nothing passes.
const QUIET: Duration = Duration::from_millis(100);

/// Tells everything that passes the interfaces of these names until `is_over`, and `None` when it begins
/// to hear, when nothing passes, and at the end. Frames that are not IP are left out.
pub fn run(
    names: &[String],
    is_over: &AtomicBool,
    mut tell: impl FnMut(Option<Passed>) -> Result<()>,
) -> Result<()> {
    let named = names.iter().map(|name| Ok((frames::index(name)?, name)));
    let interfaces: HashMap<usize, &String> = named.collect::<Result<_>>()?;
    let frames = Frames::of_all()?;
    frames.wait_at_most(QUIET)?;
    tell(None)?;
    // Pieces that the interface would have cut are longer; of those the beginning is enough.
    let (mut frame, mut until) = (vec![0; 65_536], None);
    loop {
        let seen = frames.receive(&mut frame)?;
        if until.is_none() && is_over.load(Ordering::Relaxed) {
            until = Some(UNIX_EPOCH.elapsed()?);
        }
        // What passed before the end may still wait here.
        if until.is_some_and(|until| seen.is_none_or(|seen| seen.at > until)) {
            return tell(None);
        }
        let Some(seen) = seen else {
            tell(None)?;
            continue;
        };
        let Some(interface) = interfaces.get(&seen.interface) else { continue };
        let Some(packet) = Packet::read(&frame[..seen.length]) else { continue };
        let at_us = u64::try_from(seen.at.as_micros())?;
        let (interface, is_outgoing) = ((*interface).clone(), seen.is_outgoing);
        tell(Some(Passed { at_us, interface, is_outgoing, packet }))?;
    }
}
