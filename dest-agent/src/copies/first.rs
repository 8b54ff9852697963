//! The first process of a copy's PID namespace, as the agent has it that started it.

use super::errand::Errand;
use super::words::{GO, Word};
use crate::policy::Place;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use source_agent::copies::spawn;
use std::io::{self, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often it is looked whether a copy has ended.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Until it is let go it is ours: dropping it ends it, and with it all of its namespace.
#[derive(Debug)]
pub(super) struct First {
    child: Option<Child>,
    orders: ChildStdin,
    words: BufReader<ChildStdout>,
}

/// Why there is no word.
#[derive(Debug)]
pub(super) enum Cut {
    Ended,
    Slow,
    Broken(io::Error),
}

impl First {
    pub(super) fn begin(errand: &Errand) -> io::Result<Self> {
        let mut child = spawn(&mut errand.command())?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(words)) = pipes else {
            return Err(io::Error::other("it has no pipes"));
        };
        Ok(Self { child: Some(child), orders, words: BufReader::new(words) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub(super) fn permit(&mut self) -> io::Result<()> {
        self.orders.write_all(GO.as_bytes())
    }

    /// A word is written in one piece, so who has begun one has said it.
    pub(super) fn word(&mut self, limit: Duration) -> Result<Word, Cut> {
        if self.words.buffer().is_empty() {
            self.wait(limit)?;
        }
        Word::read(&mut self.words).map_err(Cut::Broken)?.ok_or(Cut::Ended)
    }

    fn wait(&self, limit: Duration) -> Result<(), Cut> {
        let mut words = [PollFd::new(self.words.get_ref().as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        loop {
            return match poll(&mut words, limit) {
                Ok(0) => Err(Cut::Slow),
                Ok(_) => Ok(()),
                Err(nix::Error::EINTR) => continue,
                Err(error) => Err(Cut::Broken(error.into())),
            };
        }
    }

    /// It lives as long as its copy, and longer than this agent if need be. Returns when it has ended.
    /// `place` is its promise, which holds until all of its memory is there.
    pub(super) async fn let_go(mut self, place: Arc<Place>) {
        let Some(mut child) = self.child.take() else { return };
        let mut place = Some(place);
        while matches!(child.try_wait(), Ok(None)) {
            if place.is_some() && !matches!(self.word(Duration::ZERO), Err(Cut::Slow)) {
                place = None;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is what was wanted.
            let _ = child.kill();
            // It may not be able to end yet, and we may be dropped where nobody may wait. Without a
            // thread it is reaped when this agent ends.
            let reaper = thread::Builder::new().name("reaper".to_owned());
            let _ = reaper.spawn(move || child.wait());
        }
    }
}
