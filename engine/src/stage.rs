//! The shell of a tree on the destination: every process as a stopped stub with its final id,
//! its threads and its mappings in place, before the source stands still.

mod arena;
pub(crate) mod check;
mod cradle;
mod family;
mod layout;
mod leaving;
mod shared_memory;
mod threads;
pub(crate) mod vdso;

use crate::args;
use crate::batch::{Answers, Batch};
use crate::clocks::Clocks;
use crate::error::{Error, Object, OnObject as _};
use crate::failure_point;
use crate::image::{Layout, ProcessLayout};
use crate::memory::fill::Filler;
use crate::memory::mapping_image::{BackingImage, MappingImage};
use crate::memory::{PageSet, Run};
use crate::network::namespace::{self, Made, Namespace};
use crate::network::{self, Lock};
use crate::puppet::{Puppet, Steered, free_address};
use crate::sys;
use crate::tracee::Stopped;
use cradle::Cradle;
pub(crate) use family::session_needed;
pub(crate) use layout::kept_by_fork;
use shared_memory::SharedMemories;
pub(crate) use shared_memory::fetch;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
    /// Addresses that come with the tree, when it has the right to run.
    pub(crate) coming: Vec<IpAddr>,
    /// Keeps its connections silent until then. Made now, because that takes milliseconds.
    pub(crate) lock: Option<Lock>,
    /// The network namespace that the stubs are in, when it is their own.
    pub(crate) network: Option<Made>,
}

impl Stage {
    /// Builds the shell of `layout`. `offsets`: what to add to this host's clocks to get the
    /// tree's. `cgroup`: a directory of cgroup v2 in which the tree is born.
    pub fn begin(
        layout: &Layout,
        offsets: Clocks,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        // Before anything is made, and before its addresses are calculated with.
        check::check(layout)?;
        let arena_at = arena_address(layout)?;
        let root = layout.processes.first().ok_or_else(|| invalid("it has no process"))?;
        // The session of a root that does not lead one must have existed: the cradle leads it.
        let leader = (root.sid != root.pid && root.sid != 0).then_some(root.sid);
        let network = layout.network.as_ref().map(Made::make).transpose()?;
        // Its descendants are where it is born.
        let inside = namespace::enter(network.as_ref().map(Made::namespace))?;
        let cradle = Cradle::make(leader, arena_at, offsets, cgroup)?;
        drop(inside);
        let mut stage = Self {
            stubs: BTreeMap::new(),
            shared: SharedMemories::default(),
            layout: Layout::default(),
            filler: Arc::default(),
            coming: network::ips(&layout.addresses)?,
            lock: layout.has_connections.then(Lock::open).transpose()?,
            network,
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
        if layout.network != self.layout.network {
            return Err(invalid("its network namespace is another one now"));
        }
        self.build(layout, None)
    }

    fn build(&mut self, layout: &Layout, cradle: Option<&Cradle>) -> Result<(), Error> {
        check::check(layout)?;
        self.remove_all_but(layout)?;
        self.shared.complete(&layout.shared)?;
        let is_there = |process: &&ProcessLayout| self.stubs.contains_key(&process.pid);
        let (present, new): (Vec<_>, Vec<_>) = layout.processes.iter().partition(is_there);
        // First what is there: of what is new, some begins as a fork of it.
        present.into_iter().try_for_each(|process| self.shape(process, &layout.vdso))?;
        family::complete(&layout.processes, cradle, &mut self.stubs)?;
        failure_point::pass("destination.stage-stubs", "after")?;
        self.open_forks(&new)?;
        new.into_iter().try_for_each(|process| self.shape(process, &layout.vdso))?;
        self.layout = layout.clone();
        self.open_spaces()
    }

    /// Gives a stub the mappings and threads that its process has.
    fn shape(&mut self, process: &ProcessLayout, vdso: &[u8]) -> Result<(), Error> {
        if process.is_zombie {
            return Ok(());
        }
        let stub = self.stubs.get_mut(&process.pid).expect("found, or made by family::complete");
        let lost = layout::apply(stub, &process.mappings, &mut self.shared)?;
        forget(&self.filler, stub.space, &lost)?;
        vdso::apply(stub, &process.mappings, vdso)?;
        stub.make_room_for_descriptors(process.descriptors_end)?;
        threads::apply(stub, &process.tids)
    }

    /// Makes the spaces that began as forks known to the filler, with all that is in them.
    fn open_forks(&self, new: &[&ProcessLayout]) -> Result<(), Error> {
        for process in new.iter().filter(|process| process.forked_from != 0) {
            write_filler(&self.filler).add_fork(process.space, process.pid, process.forked_from)?;
            let parent = &self.stubs[&process.ppid].mappings;
            let emptied = parent.iter().filter(|mapping| layout::is_emptied_by_fork(mapping));
            let emptied: Vec<_> = emptied.map(|mapping| (mapping.start, mapping.end)).collect();
            forget(&self.filler, process.space, &emptied)?;
        }
        Ok(())
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

    pub fn pids(&self) -> Vec<i32> {
        self.stubs.keys().copied().collect()
    }

    /// The one that its sockets are to be in; `None` is ours.
    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        self.network.as_ref().map(Made::namespace)
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

fn read_filler(filler: &RwLock<Filler>) -> RwLockReadGuard<'_, Filler> {
    filler.read().unwrap_or_else(PoisonError::into_inner)
}

/// SIGKILL by pidfd. That a process is gone already is what was wanted.
pub(crate) fn kill(pid: i32) {
    if let Ok(process) = sys::process::pidfd_open(pid) {
        let _ = sys::process::pidfd_signal(process.as_fd(), libc::SIGKILL);
    }
}

/// Tells the filler which pages are not there any more.
fn forget(filler: &RwLock<Filler>, space: u32, lost: &[(u64, u64)]) -> Result<(), Error> {
    let filler = read_filler(filler);
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

fn invalid(why: &str) -> Error {
    Error::invalid("read the", Object::Image { part: "layout".to_owned() }, why)
}
