//! The way back of a steered program, for the case that we are killed: what it was doing, as a
//! signal frame in the arena, and the signal at which the code stops for us before it goes there.

use super::Steered;
use crate::arch::x86_64::interrupted;
use crate::arch::x86_64::signal_frame::SignalFrame;
use crate::error::Error;
use crate::freeze::signal_number;
use crate::sys::ptrace::XSTATE_BYTES_MAX;

/// A page for the general registers is plenty.
pub(super) const FRAME_BYTES_MAX: usize = 4096 + XSTATE_BYTES_MAX;

/// Signals that do nothing by default. Without a tracer the program gets one that it did not
/// expect, if it has a handler: an urgent condition that is none is the most harmless.
const SIGNALS: [i32; 3] = [libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD];

#[derive(Debug)]
pub(super) struct WayBack {
    signal: i32,
    frame: SignalFrame,
}

impl WayBack {
    /// For the thread as it was when it began to be steered.
    pub(super) fn make(steered: &Steered<'_>) -> Result<Self, Error> {
        let (thread, mask) = (steered.thread(), steered.signal_mask());
        let refuse = |why: &str| Err(Error::invalid("steer", thread.object(), why));
        let queued = queued(steered)?;
        let Some(signal) = SIGNALS.into_iter().find(|&signal| queued & bit(signal) == 0) else {
            return refuse("SIGURG, SIGWINCH and SIGCHLD all wait for it: none is left for us");
        };
        let registers = interrupted::by_signal_return(steered.registers(), queued & !mask != 0);
        match SignalFrame::new(&registers, mask, steered.xstate()?) {
            Some(frame) => Ok(Self { signal, frame }),
            None => refuse("its vector registers are in an unknown form"),
        }
    }

    /// None of this number was queued: unblocked while the thread is steered, it would be taken
    /// out of the queue.
    pub(super) fn signal(&self) -> i32 {
        self.signal
    }

    pub(super) fn frame(&self) -> &SignalFrame {
        &self.frame
    }
}

/// The signals that wait for the thread or for its process, as a mask.
pub(super) fn queued(steered: &Steered<'_>) -> Result<u64, Error> {
    let mut queued = 0;
    for shared in [false, true] {
        for info in steered.thread().queued_signals(shared)? {
            let number = signal_number(&info);
            queued |= if (1..=64).contains(&number) { bit(number) } else { 0 };
        }
    }
    Ok(queued)
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}
