//! Filling the memory of staged processes and of shared objects, from outside, in every round.
//!
//! A *space* is one address space or one shared memory object; its number comes over the wire.
//! Several streams fill at once, each its own slice of the addresses: only the bookkeeping is
//! under a lock, never a copy.
//!
//! Fill before a range is registered for lazy faults: a write into a registered range waits for
//! its page like any other access, and would wait for ever.

mod object;
mod process;

use crate::error::{Error, Object, OnObject};
use crate::memory::page_set::{PAGE_BYTES, PageSet, Run};
use object::ObjectMemory;
use process::ProcessMemory;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Zeros to write from; one block of the data plane.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[derive(Debug, Default)]
pub struct Filler {
    spaces: HashMap<u32, Space>,
}

#[derive(Debug)]
struct Space {
    place: Place,
    pages: Mutex<Pages>,
}

#[derive(Debug)]
enum Place {
    Process(ProcessMemory),
    Object(ObjectMemory),
}

#[derive(Clone, Debug, Default)]
struct Pages {
    /// Hold what the source last said: its bytes, or its zeros.
    stored: PageSet,
    /// Were written here, so that they no longer read as an untouched page does.
    touched: PageSet,
    /// Must be given back by the process itself (MADV_DONTNEED) before it runs.
    to_drop: PageSet,
    /// Read as a file's content while untouched, not as zeros.
    file_backed: PageSet,
}

impl Filler {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn has(&self, space: u32) -> bool {
        self.spaces.contains_key(&space)
    }

    /// The private memory of a stopped process. `file_backed` are the pages of its private file
    /// mappings: a zero there is content and has to be written.
    pub fn add_process(&mut self, space: u32, pid: i32, file_backed: PageSet) -> Result<(), Error> {
        let memory = ProcessMemory::open(pid)?;
        let pages = Pages { file_backed, ..Pages::default() };
        self.add(space, Place::Process(memory), pages);
        Ok(())
    }

    /// The same of a process that was just forked from the one whose space is `parent`: its pages
    /// are as they are there.
    pub fn add_fork(&mut self, space: u32, pid: i32, parent: u32) -> Result<(), Error> {
        let memory = ProcessMemory::open(pid)?;
        let pages = self.space(parent)?.pages().clone();
        self.add(space, Place::Process(memory), pages);
        Ok(())
    }

    /// A shared memory object (a memfd, of its final size); addresses are offsets in it.
    pub fn add_object(&mut self, space: u32, file: OwnedFd) {
        self.add(space, Place::Object(ObjectMemory::new(space, file)), Pages::default());
    }

    fn add(&mut self, space: u32, place: Place, pages: Pages) {
        self.spaces.insert(space, Space { place, pages: Mutex::new(pages) });
    }

    /// The space is no more. Its process id may be given to a stranger, so nothing may be written
    /// there from here on.
    pub fn remove(&mut self, space: u32) {
        self.spaces.remove(&space);
    }

    /// Whole pages in a row.
    pub fn data(&self, space: u32, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.data_batch(space, &[(address, bytes)])
    }

    /// Whole pages in many places, in one system call for each 1024.
    pub fn data_batch(&self, space: u32, pieces: &[(u64, &[u8])]) -> Result<(), Error> {
        let space = self.space(space)?;
        let runs: Vec<Run> = pieces.iter().map(|(at, bytes)| run_of(*at, bytes)).collect();
        // Touched even if the write fails in the middle; stored only when it has succeeded.
        space.pages().touched.extend(runs.iter().copied());
        space.write(pieces)?;
        let mut pages = space.pages();
        for run in runs {
            pages.stored.insert(run.address, run.pages);
            pages.to_drop.remove(run.address, run.pages);
        }
        Ok(())
    }

    /// Pages that are all zeros at the source. Costs nothing where nothing was written yet.
    pub fn zero(&self, space: u32, address: u64, pages: u64) -> Result<(), Error> {
        let space = self.space(space)?;
        space.zero(&space.pages().not_reading_zero(address, pages))?;
        let mut sets = space.pages();
        sets.stored.insert(address, pages);
        sets.to_drop.remove(address, pages);
        Ok(())
    }

    /// Pages that the source no longer has, or that are stale and will come lazily: what was
    /// written here must go. In an object it goes at once, in a process it is remembered.
    pub fn dropped(&self, space: u32, address: u64, pages: u64) -> Result<(), Error> {
        let space = self.space(space)?;
        let mut sets = space.pages();
        sets.stored.remove(address, pages);
        let touched: Vec<Run> = sets.touched.within(address, pages).collect();
        match &space.place {
            Place::Process(_) => sets.to_drop.extend(touched),
            Place::Object(object) => {
                sets.touched.remove(address, pages);
                drop(sets);
                object.punch(&touched)?;
            }
        }
        Ok(())
    }

    /// What the process itself must give back with MADV_DONTNEED. The caller does it and then
    /// says so with [`Filler::forget`].
    pub fn to_drop(&self, space: u32) -> Result<Vec<Run>, Error> {
        Ok(self.space(space)?.pages().to_drop.runs().collect())
    }

    /// These pages are untouched again: the stage unmapped them, mapped something else there, or
    /// dropped them.
    pub fn forget(&self, space: u32, address: u64, pages: u64) -> Result<(), Error> {
        let mut sets = self.space(space)?.pages();
        let sets = &mut *sets;
        for set in [&mut sets.stored, &mut sets.touched, &mut sets.to_drop] {
            set.remove(address, pages);
        }
        Ok(())
    }

    /// The stage changed the layout of a process: which pages are private file mappings now.
    pub fn set_file_backed(&self, space: u32, pages: PageSet) -> Result<(), Error> {
        self.space(space)?.pages().file_backed = pages;
        Ok(())
    }

    /// The pages that hold what the source last said about them.
    pub fn stored(&self, space: u32) -> Result<PageSet, Error> {
        Ok(self.space(space)?.pages().stored.clone())
    }

    /// The number came from the other host: an unknown one is its mistake, not ours.
    fn space(&self, space: u32) -> Result<&Space, Error> {
        self.spaces.get(&space).ok_or_else(|| {
            Error::invalid("fill", Object::Image { part: format!("space {space}") }, "unknown")
        })
    }
}

impl Space {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        // The sets are changed by calls that do not panic half-way.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, pieces: &[(u64, &[u8])]) -> Result<(), Error> {
        match &self.place {
            Place::Process(process) => process.write(pieces),
            Place::Object(object) => object.write(pieces),
        }
    }

    fn zero(&self, runs: &[Run]) -> Result<(), Error> {
        match &self.place {
            Place::Process(process) => process.write(&zeros_for(runs)),
            Place::Object(object) => object.punch(runs),
        }
    }
}

impl Pages {
    fn not_reading_zero(&self, address: u64, pages: u64) -> Vec<Run> {
        let mut set: PageSet = self.touched.within(address, pages).collect();
        set.extend(self.file_backed.within(address, pages));
        set.runs().collect()
    }
}

fn run_of(address: u64, bytes: &[u8]) -> Run {
    let length = bytes.len() as u64;
    debug_assert!(length.is_multiple_of(PAGE_BYTES), "the data plane carries whole pages");
    Run { address, pages: length / PAGE_BYTES }
}

fn zeros_for(runs: &[Run]) -> Vec<(u64, &'static [u8])> {
    let block = ZEROS.len() as u64;
    runs.iter()
        .flat_map(|run| {
            (run.address..run.end()).step_by(ZEROS.len()).map(move |at| (at, run.end()))
        })
        .map(|(at, end)| (at, &ZEROS[..usize::try_from(block.min(end - at)).unwrap_or(0)]))
        .collect()
}

#[cfg(test)]
mod tests;
