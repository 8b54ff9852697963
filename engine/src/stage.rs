//! The shell of a tree on the destination: every process as a stopped stub with its final id,
//! its threads and its mappings in place, before the source stands still.

mod arena;
mod cradle;
mod family;
mod layout;
mod shared_memory;
mod threads;
pub(crate) mod vdso;

use crate::args;
use crate::batch::{Answers, Batch};
use crate::clocks::Clocks;
use crate::error::{Error, Object, OnObject as _};
use crate::image::{Layout, ProcessLayout};
use crate::memory::fill::Filler;
use crate::memory::mapping_image::{BackingImage, MappingImage};
use crate::memory::{PageSet, Run};
use crate::puppet::{Puppet, Steered, free_address};
use crate::sys;
use crate::tracee::Stopped;
use cradle::Cradle;
use shared_memory::SharedMemories;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// A process that is being built. It is stopped, and dies with us until somebody decided.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) pid: i32,
    pub(crate) space: u32,
    pub(crate) puppet: Puppet,
    /// The leader first.
    pub(crate) threads: Vec<Stopped>,
    /// What is mapped by now.
    pub(crate) mappings: Vec<MappingImage>,
    /// Where its vdso is, when it has one by now.
    vdso_at: Option<u64>,
    /// Its descriptor table has room for this many.
    descriptors_end: u32,
    session: i32,
    group: i32,
}

impl Stub {
    fn new(pid: i32, space: u32, puppet: Puppet, leader: Stopped, session: i32) -> Self {
        Self {
            pid,
            space,
            puppet,
            threads: vec![leader],
            mappings: Vec::new(),
            vdso_at: None,
            descriptors_end: 0,
            session,
            group: 0,
        }
    }

    pub(crate) fn object(&self) -> Object {
        Object::Process { pid: self.pid }
    }

    /// Makes the leader do a batch.
    pub(crate) fn run(&self, batch: &Batch) -> Result<Answers, Error> {
        let steered = Steered::begin(&self.threads[0])?;
        let answers = self.puppet.run(&steered, batch);
        steered.end()?;
        answers
    }

    /// Makes its descriptor table as large as it will be. A table that grows while threads share
    /// it waits for an RCU grace period, 10 ms and more, and that is not for the freeze.
    fn make_room_for_descriptors(&mut self, end: u32) -> Result<(), Error> {
        if end <= self.descriptors_end {
            return Ok(());
        }
        let mut batch = Batch::new();
        let fd = batch.try_call(libc::SYS_pidfd_open, args![std::process::id(), 0]);
        // Beyond our own limit on open files this fails here, and is said when it matters.
        let args = args![fd, libc::F_DUPFD_CLOEXEC, end.saturating_add(BORROWED_NUMBERS)];
        batch.try_call(libc::SYS_fcntl, args);
        batch.try_call(libc::SYS_close_range, args![0, u32::MAX, 0]);
        self.run(&batch)?;
        self.descriptors_end = end;
        Ok(())
    }

    /// Kills it. Its parent has to wait for it afterwards.
    fn end(self) {
        kill(self.pid);
        for thread in self.threads.iter().rev() {
            // The only thing that waiting for a killed thread can say is that it is dead.
            let _ = sys::ptrace::wait(thread.tid());
        }
    }

    /// Takes away the exit status of a child that we ended, and the signal that told of it.
    fn wait_for_child(&self, child: i32) -> Result<(), Error> {
        let mut batch = Batch::new();
        let object = Object::Process { pid: child };
        let flags = libc::__WALL;
        batch.call("wait for", &object, libc::SYS_wait4, args![child, 0, flags, 0]);
        self.run(&batch).map(drop)
    }
}

/// Numbers above the program's own that we need for a moment.
const BORROWED_NUMBERS: u32 = 8;

/// The whole shell. Dropping it kills every stub.
#[derive(Debug)]
pub struct Stage {
    pub(crate) stubs: BTreeMap<i32, Stub>,
    pub(crate) shared: SharedMemories,
    pub(crate) layout: Layout,
    /// Writes pages into the stubs, from any thread.
    filler: Arc<RwLock<Filler>>,
}

impl Stage {
    /// Builds the shell of `layout`. `offsets`: what to add to this host's clocks to get the
    /// tree's.
    pub fn begin(layout: &Layout, offsets: Clocks) -> Result<Self, Error> {
        let arena_at = arena_address(layout)?;
        let root = layout.processes.first().ok_or_else(|| invalid("it has no process"))?;
        // The session of a root that does not lead one must have existed: the cradle leads it.
        let leader = (root.sid != root.pid && root.sid != 0).then_some(root.sid);
        let cradle = Cradle::make(leader, arena_at, offsets)?;
        let mut stage = Self {
            stubs: BTreeMap::new(),
            shared: SharedMemories::default(),
            layout: Layout::default(),
            filler: Arc::default(),
        };
        let built = stage.build(layout, Some(&cradle));
        // The root's parent is init from here on, or a subreaper. This takes milliseconds, so it
        // is not for the freeze.
        let ended = cradle.end();
        built.and(ended)?;
        Ok(stage)
    }

    /// Changes the shell to a newer layout; what stays keeps the pages that were filled in.
    pub fn apply(&mut self, layout: &Layout) -> Result<(), Error> {
        self.build(layout, None)
    }

    fn build(&mut self, layout: &Layout, cradle: Option<&Cradle>) -> Result<(), Error> {
        check(layout)?;
        self.remove_all_but(layout)?;
        family::complete(&layout.processes, cradle, &mut self.stubs)?;
        self.shared.complete(&layout.shared)?;
        for process in &layout.processes {
            let stub = self.stubs.get_mut(&process.pid).expect("made by family::complete");
            if !process.is_zombie {
                let lost = layout::apply(stub, &process.mappings, &mut self.shared)?;
                forget(&self.filler, stub.space, &lost)?;
                vdso::apply(stub, &process.mappings, &layout.vdso)?;
                stub.make_room_for_descriptors(process.descriptors_end)?;
                threads::apply(stub, &process.tids)?;
            }
        }
        self.layout = layout.clone();
        self.open_spaces()
    }

    /// What fills the stubs with pages; it may be shared between threads.
    pub fn filler(&self) -> Arc<RwLock<Filler>> {
        Arc::clone(&self.filler)
    }

    /// Makes what is new known to the filler.
    fn open_spaces(&mut self) -> Result<(), Error> {
        let mut filler = write_filler(&self.filler);
        for stub in self.stubs.values().filter(|stub| !stub.mappings.is_empty()) {
            let files = file_backed(&stub.mappings);
            if filler.has(stub.space) {
                filler.set_file_backed(stub.space, files)?;
            } else {
                filler.add_process(stub.space, stub.pid, files)?;
            }
        }
        for (space, fd) in self.shared.descriptors() {
            if !filler.has(space) {
                let fd = fd.try_clone_to_owned().on("duplicate", || Object::Host)?;
                filler.add_object(space, fd);
            }
        }
        Ok(())
    }

    fn remove_all_but(&mut self, layout: &Layout) -> Result<(), Error> {
        let wanted: BTreeMap<i32, &ProcessLayout> =
            layout.processes.iter().map(|process| (process.pid, process)).collect();
        let unwanted: Vec<i32> = self
            .stubs
            .values()
            // An id that was given to another process meanwhile has another space.
            .filter(|stub| wanted.get(&stub.pid).is_none_or(|p| p.space != stub.space))
            .map(|stub| stub.pid)
            .collect();
        // Children before parents, so that each is waited for by the parent it was born to.
        for pid in unwanted.into_iter().rev() {
            let parent = self.layout.process(pid).map(|process| process.ppid);
            if let Some(stub) = self.stubs.remove(&pid) {
                write_filler(&self.filler).remove(stub.space);
                stub.end();
            }
            if let Some(parent) = parent.and_then(|parent| self.stubs.get(&parent)) {
                parent.wait_for_child(pid)?;
            }
        }
        Ok(())
    }

    pub fn pids(&self) -> Vec<i32> {
        self.stubs.keys().copied().collect()
    }

    /// Gives the shell up: every stub is killed.
    pub fn discard(self) {}
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Whoever still fills must not write into processes that are not ours any more.
        *write_filler(&self.filler) = Filler::new();
        let stubs = std::mem::take(&mut self.stubs);
        for stub in stubs.into_values().rev() {
            stub.end();
        }
    }
}

fn write_filler(filler: &RwLock<Filler>) -> RwLockWriteGuard<'_, Filler> {
    filler.write().unwrap_or_else(PoisonError::into_inner)
}

/// SIGKILL by pidfd. That a process is gone already is what was wanted.
pub(crate) fn kill(pid: i32) {
    if let Ok(process) = sys::process::pidfd_open(pid) {
        let _ = sys::process::pidfd_signal(process.as_fd(), libc::SIGKILL);
    }
}

/// Tells the filler which pages are not there any more.
fn forget(filler: &RwLock<Filler>, space: u32, lost: &[(u64, u64)]) -> Result<(), Error> {
    let filler = filler.read().unwrap_or_else(PoisonError::into_inner);
    if !filler.has(space) {
        return Ok(());
    }
    lost.iter().try_for_each(|&(start, end)| {
        let run = Run::covering(start, end);
        filler.forget(space, run.address, run.pages)
    })
}

/// Pages that show a file's content until they are written.
fn file_backed(mappings: &[MappingImage]) -> PageSet {
    let is_file = |mapping: &&MappingImage| {
        !mapping.shared && !matches!(mapping.backing, Some(BackingImage::Anonymous(_)))
    };
    let runs = mappings.iter().filter(is_file);
    runs.map(|mapping| Run::covering(mapping.start, mapping.end)).collect()
}

fn arena_address(layout: &Layout) -> Result<u64, Error> {
    let taken: Vec<(u64, u64)> = layout
        .processes
        .iter()
        .flat_map(|process| process.mappings.iter().map(|mapping| (mapping.start, mapping.end)))
        .collect();
    free_address(&taken).ok_or_else(|| invalid("its mappings leave no room for ours"))
}

/// What must hold of a layout before anything is built from it.
fn check(layout: &Layout) -> Result<(), Error> {
    let mut ids = BTreeSet::new();
    let mut pids = BTreeSet::new();
    let mut spaces = BTreeSet::new();
    for process in &layout.processes {
        if pids.is_empty() == pids.contains(&process.ppid) {
            return Err(invalid("a process comes before its parent, or has none"));
        }
        pids.insert(process.pid);
        if !process.is_zombie && !spaces.insert(process.space) {
            return Err(invalid("two address spaces have one number"));
        }
        let mut tids = process.tids.iter().filter(|&&tid| tid != process.pid);
        if process.pid < 2 || !ids.insert(process.pid) || !tids.all(|&t| t > 1 && ids.insert(t)) {
            return Err(invalid("a process or thread id stands in it twice"));
        }
    }
    match layout.shared.iter().all(|shared| spaces.insert(shared.space)) {
        true => Ok(()),
        false => Err(invalid("two address spaces have one number")),
    }
}

fn invalid(why: &str) -> Error {
    Error::invalid("read the", Object::Image { part: "layout".to_owned() }, why)
}
