//! Lazy memory: the tree runs at the destination before all of its pages are there.
//!
//! An access to a missing page waits (userfaultfd in missing mode, kernel accesses too) until the
//! page has come from the source. What the source never had is zeros, at once. The rest is pushed
//! meanwhile. When nothing is missing any more, the ranges are unregistered and no trace is left.
//!
//! Three things must never happen, and shape everything here:
//! - *A missing page reads as zeros.* It would if the last duplicate of its userfaultfd were
//!   closed. So the [holder](crate::memory::holder) has one too, a child's is held before the
//!   child is served, and dropping a [`LazyMemory`] that is not finished closes nothing.
//! - *A page that the program gave up comes back.* So the program's own changes of its layout are
//!   read as events, under the lock under which pages are put into place.
//! - *The program waits for us.* It blocks in fork, munmap, mremap and madvise until the event is
//!   read. So events and faults are read by a thread that is first in line for the lock.
//!
//! Private anonymous memory only: files cannot be served this way, and a shared object is filled
//! before the tree runs. Linux 5.11 for the kernel's own accesses (then `CAP_SYS_PTRACE` when the
//! descriptor is created, in the stub).

mod eager;
mod latency;
mod layout;
mod ledger;
mod retire;
mod server;
mod space;
mod state;
mod statistics;
mod turn;

pub use eager::pages_of;
pub use latency::Latencies;
pub use statistics::Statistics;

use crate::error::{Error, Object, OnObject as _};
use crate::memory::holder::{Holder, Kept};
use crate::memory::page_set::{PAGE_BYTES, PageSet, Run};
use crate::sys;
use crate::sys::uffd_missing::MissingUffd;
use server::{CHANGING_WAIT, Outcome, Shared};
use space::{Content, Progress, Space};
use state::State;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use turn::Turn;

/// Pages put into place at a time: a fault waits behind at most two such batches (80 us each).
const BATCH_PAGES: usize = 64;

/// Where pages come from. Answers come back through [`LazyMemory::deliver`], from any thread, in
/// any order, in any pieces.
pub trait PageSource: Send + Sync {
    /// A program waits for these pages. Must return at once; called on the thread that serves.
    fn request(&self, space: u32, address: u64, pages: u32);

    /// Nobody needs these any more; a push may leave them out.
    fn unwanted(&self, _space: u32, _address: u64, _pages: u64) {}
}

/// A stopped process whose memory is filled except for the pages that are missing.
#[derive(Debug)]
pub struct LazySpace {
    /// The source's number for this address space.
    pub space: u32,
    pub pid: i32,
    /// Not present in the process: a stale page here would be taken for the right one.
    pub missing: PageSet,
    /// The private anonymous mappings that contain missing pages.
    pub ranges: Vec<Run>,
    /// Ranges that a forked child gets as zeros (`wf` in VmFlags).
    pub wiped_on_fork: PageSet,
}

#[derive(Debug)]
pub struct LazyMemory {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl LazyMemory {
    /// Registers the ranges and starts to serve them. The processes are still stopped; they may
    /// run as soon as this returns, and not before. Each comes with a userfaultfd that it created
    /// itself, in full mode and without UFFDIO_API done, and that was taken from it. The holder,
    /// if there is one, serves this alone and is released when nothing is missing any more.
    pub fn start(
        spaces: Vec<(LazySpace, OwnedFd)>,
        source: Arc<dyn PageSource>,
        holder: Option<Arc<Holder>>,
    ) -> Result<Self, Error> {
        let open = |(space, uffd)| open(space, uffd, holder.as_deref());
        let spaces = spaces.into_iter().map(open).collect::<Result<_, _>>()?;
        Self::serve(spaces, source, holder)
    }

    /// Goes on where an agent that died has stopped, with what its holder kept. The spaces are as
    /// they were given to [`LazyMemory::start`]; pages that came since are found in their place.
    /// The programs are running.
    pub fn resume(
        spaces: Vec<LazySpace>,
        source: Arc<dyn PageSource>,
        holder: Arc<Holder>,
        mut kept: Vec<Kept>,
    ) -> Result<Self, Error> {
        let reopen = |space| reopen(space, &mut kept);
        let mut spaces: Vec<_> = spaces.into_iter().map(reopen).collect::<Result<_, _>>()?;
        let lazy = || Object::Image { part: "lazy memory".to_owned() };
        ledger::replay(&mut spaces, kept).on("take over", lazy)?;
        spaces.iter().try_for_each(Space::wake_all).on("wake the faults of", lazy)?;
        Self::serve(spaces, source, Some(holder))
    }

    fn serve(
        spaces: Vec<Space>,
        source: Arc<dyn PageSource>,
        holder: Option<Arc<Holder>>,
    ) -> Result<Self, Error> {
        let bell =
            sys::fd::eventfd(0, libc::EFD_NONBLOCK).on("make an eventfd on", || Object::Host)?;
        let shared = Arc::new(Shared {
            state: Turn::new(State::new(spaces, holder)),
            bell,
            outcome: Mutex::new(None),
            ended: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("lazy".to_owned())
            .spawn(move || server::run(&of_thread, &*source))
            .on("start a thread on", || Object::Host)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Pages from the source, asked for or pushed. Whole pages; what is not missing any more is
    /// discarded. Returns when they are in place.
    pub fn deliver(&self, space: u32, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let batch = BATCH_PAGES * PAGE;
        for (index, bytes) in bytes.chunks(batch).enumerate() {
            let run = Run {
                address: address + (index * batch) as u64,
                pages: (bytes.len() / PAGE) as u64,
            };
            self.receive(space, run, Content::Bytes(bytes))?;
        }
        Ok(())
    }

    /// Missing pages that turned out to be zeros at the source.
    pub fn deliver_zero(&self, space: u32, address: u64, pages: u64) -> Result<(), Error> {
        let end = address + pages * PAGE_BYTES;
        for start in (address..end).step_by(BATCH_PAGES * PAGE) {
            let pages = ((end - start) / PAGE_BYTES).min(BATCH_PAGES as u64);
            self.receive(space, Run { address: start, pages }, Content::Zeros)?;
        }
        Ok(())
    }

    fn receive(&self, space: u32, run: Run, content: Content<'_>) -> Result<(), Error> {
        let object = || Object::Image { part: format!("lazy memory of space {space}") };
        loop {
            let mut state = self.shared.state.wait_in_line();
            let progress = state.receive(space, run, content).on("put pages into", object)?;
            let nothing_left = state.missing_pages() == 0;
            drop(state);
            if nothing_left {
                self.shared.ring();
            }
            if progress == Progress::Settled {
                return Ok(());
            }
            thread::sleep(CHANGING_WAIT); // the server reads the event that is in the way
        }
    }

    /// How many pages are still missing, over all processes.
    pub fn missing_pages(&self) -> u64 {
        self.shared.state.wait_in_line().missing_pages()
    }

    /// The first page of a run of the source that somebody still misses.
    pub fn still_missing(&self, space: u32, address: u64, pages: u64) -> Option<u64> {
        let state = self.shared.state.wait_in_line();
        let spaces = state.spaces.iter().filter(|other| other.origin == space);
        spaces
            .filter_map(|space| space.missing.within(address, pages).next())
            .map(|run| run.address)
            .min()
    }

    /// The pages that are still missing, by the source's number for their space.
    pub fn missing(&self) -> BTreeMap<u32, PageSet> {
        let mut missing: BTreeMap<u32, PageSet> = BTreeMap::new();
        for space in self.shared.state.wait_in_line().spaces.iter() {
            missing.entry(space.origin).or_default().insert_all(&space.missing);
        }
        missing.retain(|_, pages| !pages.is_empty());
        missing
    }

    pub fn statistics(&self) -> Statistics {
        self.shared.state.wait_in_line().statistics.clone()
    }

    /// Waits until nothing is missing and nothing is registered any more. `false` when that has
    /// not happened in time; an error when serving has ended before.
    pub fn wait(&self, time_max: Duration) -> Result<bool, Error> {
        let limit = Instant::now() + time_max;
        let mut outcome = self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match outcome.take() {
                None => {}
                Some(Outcome::Finished) => {
                    *outcome = Some(Outcome::Finished);
                    return Ok(true);
                }
                Some(Outcome::Stopped) => {
                    *outcome = Some(Outcome::Stopped);
                    return Ok(false);
                }
                Some(Outcome::Failed(cause)) => {
                    *outcome = Some(Outcome::Stopped);
                    return Err(cause);
                }
            }
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            outcome = self
                .shared
                .ended
                .wait_timeout(outcome, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The source does not answer. Nothing is asked for any more and who waits goes on waiting:
    /// a missing page is never anything else than the source's page. What is there stays usable.
    pub fn abandon(&self) {
        self.shared.state.wait_in_line().abandoned = true;
    }

    /// The source answers again: what was asked and never came is asked once more.
    pub fn ask_again(&self, source: &dyn PageSource) {
        let mut said = Vec::new();
        self.shared.state.wait_in_line().ask_again(&mut said);
        said.into_iter().for_each(|said| server::say(source, said));
    }
}

/// The kernel's pages, as an index counts them.
const PAGE: usize = 4096;

impl Drop for LazyMemory {
    /// Stops serving. What must not be undone by dropping: the userfaultfds stay open for as long
    /// as this process lives, so that nobody reads zeros where a page is missing.
    fn drop(&mut self) {
        let unfinished = self.missing_pages() > 0;
        self.shared.stop.store(unfinished, Ordering::Release);
        self.shared.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if unfinished {
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

fn open(lazy: LazySpace, uffd: OwnedFd, holder: Option<&Holder>) -> Result<Space, Error> {
    let pid = lazy.pid;
    let process = || Object::Process { pid };
    check(&lazy)?;
    let uffd = MissingUffd::new(uffd).on("make lazy", process)?;
    uffd.handshake().on("agree on a userfaultfd with", process)?;
    if let Some(holder) = holder {
        holder.hold(&space::name_of(lazy.space), &uffd)?;
    }
    for run in &lazy.ranges {
        let mapping = || Object::Mapping { pid, start: run.address, end: run.end() };
        uffd.register(run.address, run.bytes()).on("register for lazy pages", mapping)?;
    }
    Ok(Space::new(lazy, uffd))
}

/// A page without a place could never be put there, and who touched it would wait for ever.
fn check(lazy: &LazySpace) -> Result<(), Error> {
    let ranges: PageSet = lazy.ranges.iter().copied().collect();
    match lazy.missing.difference(&ranges).runs().next() {
        None => Ok(()),
        Some(run) => {
            let why = format!("its missing page at {:#x} lies in no range", run.address);
            Err(Error::invalid("make lazy", Object::Process { pid: lazy.pid }, why))
        }
    }
}

fn reopen(lazy: LazySpace, kept: &mut Vec<Kept>) -> Result<Space, Error> {
    check(&lazy)?;
    let process = || Object::Process { pid: lazy.pid };
    let uffd = ledger::take_held(kept, lazy.space).on("take over", process)?;
    Ok(Space::new(lazy, uffd))
}

#[cfg(test)]
mod tests;
