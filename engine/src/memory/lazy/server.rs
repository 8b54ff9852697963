//! The thread that answers faults and reads events, first in line before every delivery.

use super::PageSource;
use super::state::{Said, State};
use super::turn::Turn;
use crate::error::{Error, Object, OnObject as _};
use crate::sys::uffd_missing::{MissingUffd, Placed};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a space is looked at that says nothing: its process may have ended.
const LOOK_AROUND_MS: u16 = 500;
/// How soon the kernel is asked again whether a layout has stopped changing.
pub(super) const CHANGING_WAIT: Duration = Duration::from_micros(30);
/// How long the last events of a tree are waited for. They are on their way when this begins.
const LAST_EVENTS_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Turn<State>,
    /// Written to when something happened that no descriptor of a space says.
    pub(super) bell: OwnedFd,
    pub(super) outcome: Mutex<Option<Outcome>>,
    pub(super) ended: Condvar,
    pub(super) stop: std::sync::atomic::AtomicBool,
}

/// How the server's thread ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Finished,
    Failed(Error),
    Stopped,
}

impl Shared {
    pub(super) fn ring(&self) {
        // A full counter is as good as rung.
        let _ = nix::unistd::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn end(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.ended.notify_all();
    }
}

/// Runs until nothing is missing any more, or it is stopped.
pub(super) fn run(shared: &Shared, source: &dyn PageSource) {
    let outcome = match serve(shared, source) {
        Ok(outcome) => outcome,
        Err(cause) => {
            // Nothing more is asked for; whoever waits goes on waiting, and never reads zeros.
            shared.state.go_first().abandoned = true;
            Outcome::Failed(cause)
        }
    };
    shared.end(outcome);
}

fn serve(shared: &Shared, source: &dyn PageSource) -> Result<Outcome, Error> {
    let object = || Object::Image { part: "lazy memory".to_owned() };
    loop {
        let uffds: Vec<_> =
            shared.state.go_first().spaces.iter().map(|s| Arc::clone(&s.uffd)).collect();
        // Nobody adds a space but this thread, so the list holds until one forks.
        loop {
            let ready = wait(&uffds, shared).on("wait for the faults of", object)?;
            if shared.stop.load(std::sync::atomic::Ordering::Acquire) {
                return Ok(Outcome::Stopped);
            }
            let mut said = Vec::new();
            let result = turn(shared, &ready, &mut said);
            said.into_iter().for_each(|said| say(source, said));
            let (complete, spaces) = result.on("serve the faults of", object)?;
            if complete {
                return Ok(Outcome::Finished);
            }
            if spaces != uffds.len() {
                break;
            }
        }
    }
}

/// One pass under the lock: says whether all is done, and how many spaces there are now.
fn turn(shared: &Shared, ready: &Ready, said: &mut Vec<Said>) -> io::Result<(bool, usize)> {
    let mut state = shared.state.go_first();
    for &index in &ready.spaces {
        state.read_events(index, said)?;
    }
    state.settle_deferred(said)?;
    if ready.nothing_happened {
        state.notice_ended()?;
    }
    state.retire_complete();
    if state.is_complete() {
        read_last_events(&mut state, said)?;
    }
    let complete = state.is_complete();
    if complete {
        state.close();
    }
    Ok((complete, state.spaces.len()))
}

/// What was begun before the ranges were unregistered still announces itself: its caller would
/// wait for ever if nobody read it. A descriptor that says "not changing" has nothing on its way.
fn read_last_events(state: &mut State, said: &mut Vec<Said>) -> io::Result<()> {
    let limit = Instant::now() + LAST_EVENTS_WAIT;
    let mut index = 0;
    while index < state.spaces.len() {
        state.read_events(index, said)?;
        state.settle_deferred(said)?;
        state.retire_complete();
        if state.spaces[index].uffd.probe(0x1000_0000)? == Placed::Changing
            && Instant::now() < limit
        {
            thread::sleep(CHANGING_WAIT);
        } else {
            index += 1;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Ready {
    spaces: Vec<usize>,
    nothing_happened: bool,
}

fn wait(uffds: &[Arc<MissingUffd>], shared: &Shared) -> io::Result<Ready> {
    let impatient = shared.state.go_first().has_deferred();
    if impatient {
        thread::sleep(CHANGING_WAIT);
    }
    let timeout = if impatient { PollTimeout::ZERO } else { PollTimeout::from(LOOK_AROUND_MS) };
    let mut fds: Vec<_> =
        uffds.iter().map(|uffd| PollFd::new(uffd.as_fd(), PollFlags::POLLIN)).collect();
    fds.push(PollFd::new(shared.bell.as_fd(), PollFlags::POLLIN));
    let count = match poll(&mut fds, timeout) {
        Err(Errno::EINTR) => 0,
        other => other?,
    };
    let rung = fds.pop().is_some_and(|bell| bell.any() == Some(true));
    let spaces = (0..fds.len()).filter(|index| fds[*index].any() == Some(true)).collect();
    drop(fds);
    if rung {
        let _ = nix::unistd::read(&shared.bell, &mut [0; 8]);
    }
    Ok(Ready { spaces, nothing_happened: count == 0 && !impatient })
}

pub(super) fn say(source: &dyn PageSource, said: Said) {
    match said {
        Said::Request { space, run } => source.request(space, run.address, pages(run.pages)),
        Said::Unwanted { space, run } => source.unwanted(space, run.address, run.pages),
    }
}

fn pages(pages: u64) -> u32 {
    u32::try_from(pages).expect("a window around a fault is small")
}
