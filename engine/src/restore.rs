//! The way from a staged shell and an image to a tree that is one step from running.
//!
//! This file orders the work and holds none of it.

mod family_end;
mod lazy;
mod memory_fields;
mod signals;
mod threads;

use crate::args;
use crate::aspects::{self, Scope, Subject};
use crate::batch::Batch;
use crate::descriptors::{self, DescriptorsImage, Made};
use crate::error::{Error, Object, OnObject as _};
use crate::image::{ProcessImage, TreeImage};
use crate::kinds::Making;
use crate::memory::lazy::LazySpace;
use crate::puppet::{Steered, find_syscall};
use crate::source::Stopwatch;
use crate::stage::{Stage, Stub};
use crate::tracee::OnOurDeath;
use nix::sys::signal::{Signal::SIGSTOP, kill};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A tree with all of its state: stopped, and one step from running. Dropping it kills it.
#[derive(Debug)]
pub struct Restored {
    stage: Stage,
    /// Job-control stopped processes, which go on being stopped.
    stopped: Vec<i32>,
    /// A SIGSTOP waits for every process, and our death does not kill it any more.
    outlives_us: bool,
    /// What has to be fetched while it runs, a process each, with its userfaultfd.
    pub lazy: Vec<(LazySpace, OwnedFd)>,
    /// How long each step took, for the summary.
    pub timings: Vec<(&'static str, Duration)>,
}

/// Gives the shell everything that the image holds.
pub fn build(mut stage: Stage, image: &TreeImage) -> Result<Restored, Error> {
    let mut stopwatch = Stopwatch::default();
    check(&stage, image)?;
    restore_descriptors(&stage, image)?;
    stopwatch.lap("descriptors");
    lazy::drop_what_the_source_dropped(&stage)?;
    // Before the limits: the program may have as many descriptors as it is allowed.
    let lazy = lazy::register(&stage, image)?;
    stopwatch.lap("memory");
    for process in living(image) {
        restore_process(&stage.stubs[&process.pid], process)?;
    }
    stopwatch.lap("aspects");
    family_end::make_zombies(&mut stage, image)?;
    for process in living(image) {
        let stub = &stage.stubs[&process.pid];
        signals::restore(stub, process)?;
        threads::restore(stub, process)?;
    }
    stopwatch.lap("threads");
    for process in living(image) {
        finish(stage.stubs.get_mut(&process.pid).expect("checked"), process)?;
    }
    stopwatch.lap("finish");
    let stopped = living(image).filter(|p| p.is_stopped).map(|p| p.pid).collect();
    Ok(Restored { stage, stopped, outlives_us: false, lazy, timings: stopwatch.laps })
}

fn living(image: &TreeImage) -> impl Iterator<Item = &ProcessImage> {
    image.processes.iter().filter(|process| !process.is_zombie)
}

/// The image and the shell describe the same processes and threads.
fn check(stage: &Stage, image: &TreeImage) -> Result<(), Error> {
    let mut seen = BTreeMap::new();
    for process in &image.processes {
        let part = || Object::Image { part: format!("process {}", process.pid) };
        let stub = stage.stubs.get(&process.pid);
        let stub = stub.ok_or_else(|| Error::invalid("place", part(), "it was not staged"))?;
        let staged = |tid: i32| stub.threads.iter().any(|thread| thread.tid() == tid);
        if !process.is_zombie && process.threads.is_empty() {
            return Err(Error::invalid("read", part(), "it has no threads"));
        }
        if let Some(thread) = process.threads.iter().find(|thread| !staged(thread.tid)) {
            let why = format!("its thread {} was not staged", thread.tid);
            return Err(Error::invalid("place", part(), why));
        }
        if seen.insert(process.pid, ()).is_some() {
            return Err(Error::invalid("read", part(), "it stands in it twice"));
        }
    }
    match stage.stubs.keys().find(|pid| !seen.contains_key(pid)) {
        Some(&pid) => {
            let part = Object::Image { part: format!("process {pid}") };
            Err(Error::invalid("find", part, "it was staged, and is missing"))
        }
        None => Ok(()),
    }
}

#[derive(Debug)]
struct MakingFor<'a>(&'a Stage);

impl Making for MakingFor<'_> {
    fn open_shared_memory(&self, space: u32, flags: i32) -> Result<OwnedFd, Error> {
        self.0.shared.open(space, flags)
    }

    fn seal_shared_memory(&self, space: u32, seals: i32) -> Result<(), Error> {
        self.0.shared.seal(space, seals)
    }
}

/// All tables first, then what only their owners can do: an epoll needs the other descriptors.
fn restore_descriptors(stage: &Stage, image: &TreeImage) -> Result<(), Error> {
    let Some(table) = &image.descriptors else { return Ok(()) };
    let made = descriptors::create(table, &MakingFor(stage))?;
    for process in living(image) {
        install(&stage.stubs[&process.pid], table, &made)?;
    }
    for process in living(image) {
        let mut batch = Batch::new();
        descriptors::connect(table, process.pid, &mut batch)?;
        stage.stubs[&process.pid].run(&batch)?;
    }
    descriptors::finish(table, &made)
}

fn install(stub: &Stub, table: &DescriptorsImage, made: &Made) -> Result<(), Error> {
    let object = stub.object();
    let above = descriptors::numbers_needed(table, stub.pid);
    let mut batch = Batch::new();
    let us = args![std::process::id(), 0];
    let low = batch.call("open ourselves in", &object, libc::SYS_pidfd_open, us);
    let up = args![low, libc::F_DUPFD_CLOEXEC, above];
    let agent = batch.call("open ourselves in", &object, libc::SYS_fcntl, up);
    batch.call("close our pidfd in", &object, libc::SYS_close, args![low]);
    let agent = i32::try_from(stub.run(&batch)?.raw(agent)).unwrap_or(-1);
    let mut batch = Batch::new();
    descriptors::install(table, made, stub.pid, agent, &mut batch)?;
    batch.call("close our pidfd in", &object, libc::SYS_close, args![agent]);
    stub.run(&batch).map(drop)
}

fn restore_process(stub: &Stub, process: &ProcessImage) -> Result<(), Error> {
    if let Some(fields) = &process.memory {
        memory_fields::restore(stub, fields)?;
    }
    let subject = Subject { pid: process.pid, tid: process.pid, status: "" };
    let mut batch = Batch::new();
    aspects::restore_all(&process.aspects, Scope::Process, &subject, &mut batch)?;
    stub.run(&batch)?;
    aspects::restore_outside_all(&process.aspects, Scope::Process, &subject)
}

/// The last thing done from inside: our memory goes away, by an instruction of the process's own.
fn finish(stub: &mut Stub, process: &ProcessImage) -> Result<(), Error> {
    let syscall_at = find_syscall(process.pid)?;
    let image = &process.threads[0];
    let last = stub.threads.iter().find(|thread| thread.tid() == image.tid);
    let last = last.expect("checked: every thread of the image was staged");
    let steered = Steered::begin(last)?;
    stub.puppet.clone().close(&steered, syscall_at)?;
    steered.end()
}

impl Restored {
    pub fn pids(&self) -> Vec<i32> {
        self.stage.pids()
    }

    /// Makes the stopped tree outlive us without running: a SIGSTOP waits for every process, and
    /// from then on nothing kills them with us. [`Self::run`] takes the SIGSTOP away again.
    pub fn outlive_us(&mut self) -> Result<(), Error> {
        if self.outlives_us {
            return Ok(());
        }
        for &pid in self.stage.stubs.keys() {
            let process = nix::unistd::Pid::from_raw(pid);
            kill(process, SIGSTOP).on("guard", || Object::Process { pid })?;
        }
        self.outlives_us = true;
        let threads = self.stage.stubs.values().flat_map(|stub| &stub.threads);
        threads.into_iter().try_for_each(|thread| thread.set_on_our_death(OnOurDeath::Runs))
    }

    /// Lets the tree run. From here on it is not ours to kill.
    ///
    /// Where memory is lazy it must be served already.
    pub fn run(mut self) -> Result<(), Error> {
        // All first: if we die between two of them, none may be killed for it, and none may run
        // without the others.
        self.outlive_us()?;
        let stubs = std::mem::take(&mut self.stage.stubs);
        let mut result = Ok(());
        for (pid, stub) in stubs {
            // What job control had stopped meets the SIGSTOP before its first instruction.
            let goes_on = !self.stopped.contains(&pid);
            for (index, thread) in stub.threads.into_iter().enumerate() {
                // The first thread takes it away for its process; the others stand still until then.
                result = result.and(match index == 0 && goes_on {
                    true => thread.release_without(libc::SIGSTOP),
                    false => thread.release(),
                });
            }
        }
        result
    }

    /// Gives the tree up: it never ran.
    pub fn discard(self) {}
}
