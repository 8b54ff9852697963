//! The first process of a tree that is being built: empty, stopped, in the right time.
//!
//! It is a fork of ours that has given everything up: memory, descriptors, session. All other
//! stubs descend from it, so they inherit the arena, the time namespace and the empty tables.
//! When the root is made it ends, and the root becomes a child of init.

use crate::args;
use crate::batch::Batch;
use crate::clocks::Clocks;
use crate::error::{Error, Object, OnObject as _};
use crate::priority::as_usual;
use crate::puppet::{ARENA_BYTES, Puppet, Steered, find_syscall};
use crate::sys::process::{fork_parked, reap};
use crate::tracee::{OnOurDeath, Outcome, Running, Stopped};
use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// End of user addresses with four-level page tables; what lies above needs a hint to be used.
const USER_ADDRESS_END: u64 = 0x7fff_ffff_f000;
const CLONE_NEWTIME: u64 = 0x80;
const RSEQ_FLAG_UNREGISTER: u64 = 1;

/// For a fork of ours to stop. Nobody stands still for it, and on a host short of memory its first
/// pages come from the disk.
const STUB_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Cradle {
    pub(super) puppet: Puppet,
    pub(super) thread: Stopped,
}

impl Cradle {
    /// `pid`: the id it must have, because the tree's root is in a session of that id.
    pub(super) fn make(
        pid: Option<i32>,
        arena_at: u64,
        offsets: Clocks,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        let object = || pid.map_or(Object::Host, |pid| Object::Process { pid });
        let pid = as_usual(|| fork_parked(pid, cgroup)).on("make a first process on", object)?;
        let Outcome::Alive(running) = Running::seize(pid, pid, OnOurDeath::Dies)? else {
            return Err(Error::invalid("seize", object(), "it died"));
        };
        let Outcome::Alive(thread) = running.stop(STUB_WAIT)? else {
            return Err(Error::invalid("stop", object(), "it died"));
        };
        let steered = Steered::begin(&thread)?;
        let puppet = Puppet::open(&steered, arena_at, find_syscall(pid)?, OnOurDeath::Dies)?;
        empty(&puppet, &steered, thread.rseq()?)?;
        enter_time(&puppet, &steered, offsets)?;
        steered.end()?;
        Ok(Self { puppet, thread })
    }

    pub(super) fn pid(&self) -> i32 {
        self.thread.pid()
    }

    /// Ends it. Its children go to the nearest subreaper or to init.
    pub(super) fn end(self) -> Result<(), Error> {
        let pid = self.pid();
        super::kill(pid);
        crate::sys::ptrace::wait(pid).on("end", || Object::Process { pid })?;
        // As its parent we may have to wait for it a second time, after having traced it.
        let _ = reap(pid);
        Ok(())
    }
}

/// Gives up everything it got from us. The rseq registration goes first: the kernel writes to
/// that memory, and kills a process whose registration points nowhere.
fn empty(
    puppet: &Puppet,
    steered: &Steered<'_>,
    rseq: crate::sys::ptrace::RseqConfiguration,
) -> Result<(), Error> {
    let object = steered.thread().object();
    let mut batch = Batch::new();
    if rseq.address != 0 {
        let args = args![rseq.address, rseq.size, RSEQ_FLAG_UNREGISTER, rseq.signature];
        batch.call("unregister rseq of", &object, libc::SYS_rseq, args);
    }
    unmap_all_but(puppet.address(), &object, &mut batch);
    batch.call("close the descriptors of", &object, libc::SYS_close_range, args![0, u32::MAX, 0]);
    batch.call("make a session for", &object, libc::SYS_setsid, args![]);
    puppet.run(steered, &batch).map(drop)
}

pub(super) fn unmap_all_but(arena: u64, object: &Object, batch: &mut Batch) {
    let after = arena + ARENA_BYTES;
    batch.call("empty the memory of", object, libc::SYS_munmap, args![0, arena]);
    let rest = args![after, USER_ADDRESS_END - after];
    batch.call("empty the memory of", object, libc::SYS_munmap, rest);
}

/// A time namespace of its own: made by the process, its offsets written by us, then entered.
/// (clone3 with CLONE_NEWTIME gives one whose offsets are already fixed.)
fn enter_time(puppet: &Puppet, steered: &Steered<'_>, offsets: Clocks) -> Result<(), Error> {
    let object = steered.thread().object();
    let pid = steered.thread().pid();
    let mut batch = Batch::new();
    let args = args![CLONE_NEWTIME];
    batch.call("make a time namespace for", &object, libc::SYS_unshare, args);
    puppet.run(steered, &batch)?;

    let path = format!("/proc/{pid}/timens_offsets");
    fs::write(&path, offsets.as_offsets()).on("write", || Object::File { path })?;

    let path = format!("/proc/{pid}/ns/time_for_children");
    let namespace = File::open(&path).on("open", || Object::File { path })?;
    let mut batch = Batch::new();
    let pidfd = batch.call(
        "open ourselves in",
        &object,
        libc::SYS_pidfd_open,
        args![std::process::id(), 0],
    );
    let args = args![pidfd, namespace.as_raw_fd(), 0];
    let fd = batch.call("hand a time namespace to", &object, libc::SYS_pidfd_getfd, args);
    batch.call("enter a time namespace in", &object, libc::SYS_setns, args![fd, CLONE_NEWTIME]);
    let all = args![0, u32::MAX, 0];
    batch.call("close the descriptors of", &object, libc::SYS_close_range, all);
    puppet.run(steered, &batch).map(drop)
}
