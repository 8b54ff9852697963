//! One process of a running tree, and the account of what was sent of its memory.

use super::Round;
use super::eager;
use super::shape::Shape;
use crate::error::{Error, Object};
use crate::freeze;
use crate::image::ProcessImage;
use crate::memory::backing::MappingKind;
use crate::memory::private::PrivateMemory;
use crate::memory::read::{ReadPages, While};
use crate::memory::tracker::{self, Method, Tracker};
use crate::memory::{PageSet, PageSink};
use crate::puppet::{Steered, find_syscall};
use crate::tracee::{OnOurDeath, Outcome, Running, STOP_WAIT, Stopped};
use crate::tree::Process;
use std::os::fd::OwnedFd;

#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) shape: Shape,
    method: Method,
    pub(super) memory: PrivateMemory,
    pub(super) birth: Birth,
    /// A whole round of it is on the way, or has landed: by the next layout it has.
    pub(super) was_sent: bool,
}

/// How its memory begins at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Birth {
    Undecided,
    /// Perhaps as a fork of its parent's, once that has landed. Nothing of it is sent before.
    HeldBack,
    /// As its layout says.
    Settled,
}

impl Tracked {
    /// Begins to track. `stopped`: a thread of it, when it stands still already.
    pub(super) fn open(
        process: &Process,
        space: u32,
        method: Method,
        stopped: Option<&Stopped>,
    ) -> Result<Self, Error> {
        let tracker = open_tracker(process.pid, method, stopped)?;
        let memory = PrivateMemory::new(process.pid, space, tracker);
        let (shape, birth) = (Shape::of(process, space), Birth::Undecided);
        Ok(Self { shape, method, memory, birth, was_sent: false })
    }

    /// Sends what was written since the last round.
    pub(super) fn round(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        self.collect()?;
        self.was_sent = true;
        let dropped_pages = self.memory.drop_gone(self.shape.mappings(), sink)?;
        let read = self.memory.send_stale(While::Running, sink)?;
        Ok(Round { dropped_pages, ..Round::from(read) })
    }

    /// Sends what cannot follow later, and has the destination forget what was written of the rest.
    pub(super) fn withdraw(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        self.collect()?;
        let wanted = self.stale_that_cannot_wait();
        let round = self.send(&wanted, While::Running, sink)?;
        let dropped_pages = self.memory.withdraw(sink)?;
        Ok(Round { dropped_pages, ..round })
    }

    /// Only anonymous memory is completed by fault, and not all of that: a private mapping of
    /// /dev/zero is anonymous, but userfaultfd finds it to lie beyond the end of its empty file
    /// (EFAULT of UFFDIO_COPY).
    fn stale_that_cannot_wait(&self) -> PageSet {
        let all = self.shape.mappings_with_kinds();
        let cannot_wait =
            all.filter(|(mapping, kind)| **kind != MappingKind::Anonymous || mapping.has_file());
        let runs = cannot_wait.flat_map(|(mapping, _)| {
            self.memory.stale().within(mapping.start, mapping.pages()).collect::<Vec<_>>()
        });
        runs.collect()
    }

    pub(super) fn peek(&mut self) -> Result<u64, Error> {
        match self.memory.peek(self.shape.mappings()) {
            // It ended, or runs another program: the next layout sees that.
            Err(error) if error.is_gone() => Ok(0),
            other => other,
        }
    }

    /// After an execve(2) there is another memory to be tracked; what ended has none.
    pub(super) fn collect(&mut self) -> Result<(), Error> {
        let collected = self.collect_once();
        match collected {
            Err(error) if error.is_gone() => {}
            other => return other,
        }
        match open_tracker(self.shape.pid, self.method, None) {
            Ok(tracker) => self.memory.replace_tracker(tracker),
            Err(error) if error.is_gone() => return Ok(()),
            Err(error) => return Err(error),
        }
        match self.collect_once() {
            Err(error) if error.is_gone() => Ok(()),
            other => other,
        }
    }

    fn collect_once(&mut self) -> Result<(), Error> {
        if !self.memory.needs_standstill() {
            return self.memory.collect(self.shape.mappings()).map(drop);
        }
        let frozen = freeze::freeze_one(self.shape.pid)?;
        let collected = self.memory.collect(self.shape.mappings()).map(drop);
        frozen.thaw()?;
        collected
    }

    /// The last account. The mappings are those that were read while it stood still.
    pub(super) fn collect_frozen(
        &mut self,
        stopped: &Stopped,
        sink: &mut dyn PageSink,
    ) -> Result<Round, Error> {
        let collected = match self.memory.collect_frozen(self.shape.mappings(), sink) {
            Err(error) if error.is_gone() => {
                let tracker = open_tracker(self.shape.pid, self.method, Some(stopped))?;
                self.memory.replace_tracker(tracker);
                self.memory.collect_frozen(self.shape.mappings(), sink)?
            }
            other => other?,
        };
        let _ = collected;
        Ok(Round::default())
    }

    pub(super) fn all_stale(&self) -> PageSet {
        self.memory.stale().clone()
    }

    /// Stale pages that must be there before the process runs: what the kernel cannot fetch by
    /// fault, and what every thread touches at once.
    pub(super) fn needed_at_once(&self, process: &ProcessImage) -> PageSet {
        let mut needed = self.stale_that_cannot_wait();
        needed.insert_all(&eager::of_frozen(process).intersection(self.memory.stale()));
        needed
    }

    pub(super) fn send(
        &mut self,
        pages: &PageSet,
        during: While,
        sink: &mut dyn PageSink,
    ) -> Result<Round, Error> {
        self.memory.send(pages, during, sink).map(Round::from)
    }
}

impl From<ReadPages> for Round {
    fn from(read: ReadPages) -> Self {
        Self { data_pages: read.data_pages, zero_pages: read.zero_pages, dropped_pages: 0 }
    }
}

fn open_tracker(
    pid: i32,
    method: Method,
    stopped: Option<&Stopped>,
) -> Result<Box<dyn Tracker>, Error> {
    match (method, stopped) {
        (Method::SoftDirty, _) => tracker::soft_dirty(pid),
        (Method::WriteProtect, Some(thread)) => {
            tracker::write_protect(pid, userfaultfd_of(thread)?)
        }
        (Method::WriteProtect, None) => {
            let thread = stop(pid)?;
            let userfaultfd = userfaultfd_of(&thread);
            freeze::release(thread, false)?;
            tracker::write_protect(pid, userfaultfd?)
        }
    }
}

/// Stops one thread of a running process for less than a millisecond.
fn stop(pid: i32) -> Result<Stopped, Error> {
    let gone = || {
        Error::new("stop", Object::Process { pid }, std::io::Error::from_raw_os_error(libc::ESRCH))
    };
    let Outcome::Alive(running) = Running::seize(pid, pid, OnOurDeath::Runs)? else {
        return Err(gone());
    };
    match running.stop(STOP_WAIT)? {
        Outcome::Alive(thread) => Ok(thread),
        Outcome::Gone => Err(gone()),
    }
}

fn userfaultfd_of(thread: &Stopped) -> Result<OwnedFd, Error> {
    let syscall_at = find_syscall(thread.pid())?;
    let steered = Steered::begin(thread)?;
    let taken = tracker::take_userfaultfd(&steered, syscall_at);
    steered.end()?;
    taken
}
