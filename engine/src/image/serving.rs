//! The pages of an image for a tree that runs already: asked for by fault, or pushed.

use super::PAGE;
use super::store::Store;
use crate::error::Error;
use crate::memory::lazy::{LazyMemory, PageSource};
use crate::memory::{PageSink, Run};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Pages that are pushed at a time: a fault waits behind one such run at most.
const PUSH_PAGES: u64 = 64;
const PUSH_BYTES: usize = 64 * PAGE;
/// How long to wait for a fault when everything was pushed.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// What a [`LazyMemory`] asks for, until somebody serves it.
#[derive(Debug)]
pub struct Wanted(Mutex<Sender<(u32, Run)>>);

impl PageSource for Wanted {
    fn request(&self, space: u32, address: u64, pages: u32) {
        let wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody reads it any more when nothing is missing.
        let _ = wanted.send((space, Run { address, pages: pages.into() }));
    }
}

/// The pages of an image, for a memory that lacks them.
#[derive(Debug)]
pub struct Served {
    store: Store,
    requests: Receiver<(u32, Run)>,
}

impl Served {
    pub fn new(store: Store) -> (Arc<Wanted>, Self) {
        let (wanted, requests) = channel();
        (Arc::new(Wanted(Mutex::new(wanted))), Self { store, requests })
    }

    /// Serves until nothing is missing. An error is the tree's end: a page that cannot be read can
    /// be replaced by nothing.
    pub fn serve(self, memory: &LazyMemory) -> Result<(), Error> {
        let mut sink = Delivering(memory);
        loop {
            let mut left = left(memory).into_iter();
            if left.len() == 0 {
                return Ok(());
            }
            for (space, run) in &mut left {
                while let Ok((space, run)) = self.requests.try_recv() {
                    self.store.read(space, run, &mut sink)?;
                }
                if memory.still_missing(space, run.address, run.pages).is_some() {
                    self.store.read(space, run, &mut sink)?;
                }
            }
            // What was forked meanwhile lacks what its parent lacked.
            match self.requests.recv_timeout(IDLE_WAIT) {
                Ok((space, run)) => self.store.read(space, run, &mut sink)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

/// Everything that is missing, in runs that are pushed at a time.
fn left(memory: &LazyMemory) -> Vec<(u32, Run)> {
    let mut left = Vec::new();
    for (space, pages) in memory.missing() {
        for run in pages.runs() {
            let starts = (run.address..run.end()).step_by(PUSH_BYTES);
            left.extend(starts.map(|address| {
                let pages = Run::covering(address, run.end()).pages.min(PUSH_PAGES);
                (space, Run { address, pages })
            }));
        }
    }
    left
}

struct Delivering<'a>(&'a LazyMemory);

impl PageSink for Delivering<'_> {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.deliver(space, address, bytes).map_err(io::Error::other)
    }

    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.0.deliver_zero(space, address, pages).map_err(io::Error::other)
    }

    fn dropped(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
