//! Who listens to a migration of a source agent. They come and go, and it goes on.

use crate::frames::Frame;
use crate::progress::Progress;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Frames for one listener. Who does not read them in time is left behind.
const FRAMES_MAX: usize = 1024;

#[derive(Clone, Debug, Default)]
pub(crate) struct Listeners(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    senders: Vec<Sender<Frame>>,
    phase: String,
}

impl Listeners {
    pub(crate) fn join(&self) -> Receiver<Frame> {
        let (sender, frames) = channel(FRAMES_MAX);
        self.lock().senders.push(sender);
        frames
    }

    pub(crate) fn say(&self, frame: &Frame) {
        let mut heard = self.lock();
        if let Frame::Progress(Progress::Phase(phase)) = frame {
            heard.phase.clone_from(phase);
        }
        heard.senders.retain(|sender| sender.try_send(frame.clone()).is_ok());
    }

    /// The last frame for all who listen now.
    pub(crate) fn dismiss(&self, code: u8) {
        self.say(&Frame::End(code));
        self.lock().senders.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().senders.is_empty()
    }

    pub(crate) fn phase(&self) -> String {
        self.lock().phase.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_gone_and_who_does_not_read_holds_nobody_up() {
        let listeners = Listeners::default();
        drop(listeners.join());
        let mut slow = listeners.join();
        for _ in 0..=FRAMES_MAX {
            listeners.say(&Frame::Text("x".into()));
        }
        assert!(listeners.is_empty());
        assert!(slow.try_recv().is_ok(), "what there was room for");
    }

    #[test]
    fn the_last_phase_is_known_to_who_comes_late() {
        let listeners = Listeners::default();
        listeners.say(&Frame::Progress(Progress::Phase("rounds".into())));
        assert_eq!(listeners.phase(), "rounds");
    }
}
