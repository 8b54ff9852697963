//! The way from a staged shell and an image to a tree that is one step from running.
//!
//! This file orders the work and holds none of it.

mod agreement;
mod connecting;
mod family_end;
mod lazy;
mod memory_fields;
mod running;
mod signals;
mod socket_calls;
mod threads;

pub use lazy::drop_what_the_source_dropped;

use crate::args;
use crate::aspects::{self, Scope, Subject};
use crate::batch::Batch;
use crate::descriptors::{self, Awaiting, DescriptorsImage, Made};
use crate::error::{Error, Object, OnObject as _};
use crate::failure_point;
use crate::image::{ProcessImage, TreeImage};
use crate::kinds::{Maker, Making, SocketCall};
use crate::memory::lazy::LazySpace;
use crate::network::{Lock, Namespace, namespace};
use crate::puppet::{Steered, find_syscall};
use crate::stage::{Stage, Stub};
use crate::stopwatch::Stopwatch;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A tree with all of its state: stopped, and one step from running. Dropping it kills it, but not
/// after [`Restored::outlive_us`]: then it may have been given the right to run.
#[derive(Debug)]
pub struct Restored {
    stage: Stage,
    /// Job-control stopped processes, which go on being stopped.
    stopped: Vec<i32>,
    /// A SIGSTOP waits for every process, and our death does not kill it any more.
    outlives_us: bool,
    /// What has to be fetched while it runs, a process each, with its userfaultfd.
    pub lazy: Vec<(LazySpace, OwnedFd)>,
    /// What has something left to be done when the tree may run.
    awaiting: Vec<Awaiting>,
    /// How long each step took, for the summary.
    pub timings: Vec<(&'static str, Duration)>,
}

/// Gives the shell everything that the image holds.
pub fn build(mut stage: Stage, image: &TreeImage) -> Result<Restored, Error> {
    let mut stopwatch = Stopwatch::default();
    agreement::check(&stage, image)?;
    let _inside = namespace::enter(stage.namespace())?;
    silence(&mut stage, image)?;
    let awaiting = restore_descriptors(&stage, image)?;
    stopwatch.lap("descriptors");
    failure_point::pass("destination.restore-descriptors", "after")?;
    drop_what_the_source_dropped(&stage)?;
    // Before the limits: the program may have as many descriptors as it is allowed.
    let lazy = lazy::register(&stage, image)?;
    stopwatch.lap("memory");
    failure_point::pass("destination.restore-memory", "after")?;
    // Nothing that building sent may be left when the timers are armed, and nothing that a timer
    // sends from then on may be taken away again: a program that waits for it would wait for ever.
    family_end::make_zombies(&mut stage, image)?;
    for process in living(image) {
        signals::take_strays(&stage.stubs[&process.pid])?;
    }
    for process in living(image) {
        restore_process(&stage.stubs[&process.pid], process)?;
    }
    stopwatch.lap("aspects");
    failure_point::pass("destination.restore-aspects", "after")?;
    for process in living(image) {
        let stub = &stage.stubs[&process.pid];
        signals::restore(stub, process)?;
        threads::restore(stub, process)?;
    }
    stopwatch.lap("threads");
    failure_point::pass("destination.restore-threads", "after")?;
    for process in living(image) {
        finish(stage.stubs.get_mut(&process.pid).expect("checked"), process)?;
    }
    stopwatch.lap("finish");
    let stopped = living(image).filter(|p| p.is_stopped).map(|p| p.pid).collect();
    let timings = stopwatch.laps;
    Ok(Restored { stage, stopped, outlives_us: false, lazy, awaiting, timings })
}

fn living(image: &TreeImage) -> impl Iterator<Item = &ProcessImage> {
    image.processes.iter().filter(|process| !process.is_zombie)
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

    fn contains_process(&self, pid: i32) -> bool {
        self.0.stubs.contains_key(&pid)
    }

    fn coming(&self) -> &[IpAddr] {
        &self.0.coming
    }

    fn socket_call(&self, maker: &Maker, call: SocketCall<'_>) -> Result<Vec<OwnedFd>, Error> {
        match self.0.stubs.get(&maker.pid) {
            Some(stub) => socket_calls::run(stub, maker, call),
            None => maker.make_outside(call).on("connect", || Object::Process { pid: maker.pid }),
        }
    }
}

/// Nobody may hear of a connection here before the tree has the right to run.
fn silence(stage: &mut Stage, image: &TreeImage) -> Result<(), Error> {
    if stage.network.is_some() {
        // Its cables are down.
        return Ok(());
    }
    let flows = image.descriptors.as_ref().map(descriptors::flows_of).transpose()?;
    let flows = flows.unwrap_or_default();
    if flows.is_empty() {
        return Ok(());
    }
    let lock = match stage.lock.take() {
        Some(lock) => lock,
        None => Lock::open()?,
    };
    stage.lock.insert(lock).hold(&flows)
}

/// All tables first, then what only their owners can do: an epoll needs the other descriptors.
fn restore_descriptors(stage: &Stage, image: &TreeImage) -> Result<Vec<Awaiting>, Error> {
    let Some(table) = &image.descriptors else { return Ok(Vec::new()) };
    let made = descriptors::create(table, &MakingFor(stage))?;
    for process in living(image) {
        install(&stage.stubs[&process.pid], table, &made)?;
    }
    for process in living(image) {
        let mut batch = Batch::new();
        descriptors::connect(table, process.pid, &mut batch)?;
        stage.stubs[&process.pid].run(&batch)?;
    }
    descriptors::finish(table, &made)?;
    made.awaiting_life(table)
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

    /// That come with it, as `ADDR/LEN[@DEV]`.
    pub fn addresses(&self) -> &[String] {
        &self.stage.layout.addresses
    }

    /// The network namespace that comes with it.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.stage.namespace()
    }

    /// Gives the tree up: it never ran.
    pub fn discard(mut self) {
        self.outlives_us = false;
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if self.outlives_us {
            self.stage.stubs.clear();
        }
    }
}
