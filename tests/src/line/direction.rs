//! One direction of a line: decides at once, delivers later.

use crate::frames::Frames;
use crate::relay::{Conditions, Fate, Path};
use anyhow::Result;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Instant;

/// Above every MTU that we use.
const FRAME_MAX: usize = 4096;

/// Frames under way; beyond it they are lost, as in a full queue.
const UNDER_WAY_MAX: usize = 65_536;

/// Carries what comes in at `from` to `to`, until one of them ends.
pub fn carry(from: &Frames, to: &Arc<Frames>, conditions: &Conditions, seed: u64) -> Result<()> {
    let (under_way, arriving) = sync_channel(UNDER_WAY_MAX);
    let to = Arc::clone(to);
    thread::spawn(move || deliver(&to, &arriving));
    let (mut path, mut frame) = (Path::new(seed), [0; FRAME_MAX]);
    loop {
        let Some(seen) = from.receive(&mut frame)?.filter(|seen| !seen.is_outgoing) else {
            continue;
        };
        if let Fate::Arrives(at) = path.handle(conditions, Instant::now(), seen.length) {
            let _ = under_way.try_send((at, frame[..seen.length].to_vec()));
        }
    }
}

fn deliver(to: &Frames, arriving: &Receiver<(Instant, Vec<u8>)>) {
    for (at, frame) in arriving {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // An interface that is down loses it, which is what a line does.
        let _ = to.send(&frame);
    }
}
