//! The aspects of a process or thread: kernel state that is behind no descriptor.
//!
//! An aspect is one file: how it is read from a stopped thread, and how a new thread is given it,
//! with the test of both. To add one, write the file and add its line to the list below.
//!
//! Both sides only write system calls into a [`Batch`]: all aspects of a thread cost one round
//! trip together, because five hundred threads are captured inside the freeze.
//!
//! # The order of the list
//!
//! It is the order in which new threads are given their aspects. A process's come first, from one
//! of its threads that may still do everything; then each thread's own.
//!
//! - Signal actions lead: setting an ignored one discards what is pending.
//! - The permission for large registers comes before alternate stacks, whose least size grows
//!   with it.
//! - The root comes after the working directory, whose path is told from the host's root.
//! - Timers come late because they run down while the rest is restored. Limits come after them:
//!   the limit of pending signals is also one of timers.
//! - Credentials come after everything that may need a privilege, and before the thread's flags:
//!   a change of credentials resets `dumpable` and the parent-death signal, prctl(2).
//!
//! All of this assumes that mappings, descriptors and threads are there already: limits, MDWE and
//! the personality would forbid or change how they are made.
//!
//! # What is not kept
//!
//! CPU times, fault and switch counters and the start time begin anew: nothing sets them.
//! The last overrun count of a POSIX timer, the audit login uid, the core-scheduling cookie and
//! the autogroup are the destination's. Keyrings are not carried: a thread keeps those that the
//! destination's agent has. Landlock rules cannot be seen from outside and so are neither carried
//! nor refused. Registers, signal masks and syscall user dispatch are ptrace's, not a batch's.

mod all;
mod directory;
mod entry;
mod exit_signal;
mod flags;
mod mask;
mod pending_signals;
mod refused;
mod rseq;
#[cfg(test)]
mod trial;

pub use all::{
    Asked, AspectImage, ask_all, examine_all, name_of, read_all, restore_all, restore_outside_all,
    robust_list_head, touched_by_kernel,
};
pub use credentials::privileges::{Privileges, privileges_in};
pub use entry::AspectEntry;
pub use exit_signal::exit_signal;
pub use pending_signals::{Queue, restore_pending_signals};
pub use rseq::{RseqImage, restore_rseq};

use crate::batch::{Answers, Batch};
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use entry::aspects;
use std::io;

aspects! {
    // Of a process.
    signal_actions: SignalActions,
    xstate_permission: XstatePermission,
    umask: Umask,
    working_directory: WorkingDirectory,
    root_directory: RootDirectory,
    membarrier: Membarrier,
    process_flags: ProcessFlags,
    coredump_filter: CoredumpFilter,
    oom_score_adj: OomScoreAdj,
    posix_timers: PosixTimers,
    interval_timers: IntervalTimers,
    limits: Limits,
    // Of a thread.
    name: Name,
    clear_child_tid: ClearChildTid,
    robust_list: RobustList,
    alternate_stack: AlternateStack,
    memory_policy: MemoryPolicy,
    cpu_affinity: CpuAffinity,
    scheduling: Scheduling,
    io_priority: IoPriority,
    personality: Personality,
    credentials: Credentials,
    thread_flags: ThreadFlags,
}

/// Once per process (asked of any living thread: the leader may be gone), or once per thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Process,
    Thread,
}

/// Whose state it is.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub pid: i32,
    pub tid: i32,
    /// The text of `/proc/{tid}/status`, of the thread as it stands; empty while restoring.
    pub status: &'a str,
}

impl Subject<'_> {
    pub fn object(&self, name: &'static str) -> Object {
        Object::Aspect { tid: self.tid, name }
    }

    /// A field of `status`: `field("SigIgn")`.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(self.status, name)
    }

    /// The path of a file in the thread's procfs directory. `/proc/{tid}` exists for every thread,
    /// listed or not, and unlike `/proc/{pid}` it outlives the leader, proc_tid(5).
    fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.tid)
    }

    /// The file's text: 5-20 us inside the freeze, so only where no call gives the same.
    fn text(&self, name: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.path(name))?).into_owned())
    }

    /// Where a link in the thread's procfs directory leads.
    fn link(&self, name: &str) -> io::Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt as _;
        Ok(std::fs::read_link(self.path(name))?.into_os_string().into_vec())
    }

    fn process(&self) -> Object {
        Object::Process { pid: self.pid }
    }
}

/// The text for [`Subject::status`]. The thread's name in it can be any bytes, so it is not always
/// text: what is none comes as U+FFFD. Fails with ENOENT or ESRCH if the thread is gone.
pub fn read_status(tid: i32) -> io::Result<String> {
    Subject { pid: tid, tid, status: "" }.text("status")
}

/// A field of a text in the form of `/proc/PID/status`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(fuzzing)]
pub(crate) fn parse_all(text: &str) {
    let _ = umask::parse(text);
    let _ = coredump_filter::parse(text);
    credentials::parse_all(text);
    posix_timers::parse_all(text);
}

/// What an aspect knows how to do. The two sides live in one file so that they change together.
pub trait Aspect {
    /// As a person would say it; goes on the wire, so it never changes.
    const NAME: &'static str;
    const VERSION: u32 = 1;
    const SCOPE: Scope;

    type Image: prost::Message + Default;
    /// The calls whose answers `read` needs.
    type Asked: 'static;

    /// What cannot be carried, seen from outside before anything is stopped.
    fn examine(_subject: &Subject<'_>) -> Vec<Refusal> {
        Vec::new()
    }

    /// Writes the queries into the batch. Capture only reads: the source may keep its process.
    fn ask(subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked;

    fn read(
        subject: &Subject<'_>,
        asked: Self::Asked,
        answers: &Answers,
    ) -> Result<Self::Image, Error>;

    /// Writes the calls that give a new thread this state.
    fn restore(image: &Self::Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error>;

    /// Memory (address, bytes) that the kernel accesses by itself on the thread's behalf. It has to
    /// be there before the thread runs: a dying thread's accesses are not waited for.
    fn touched(_image: &Self::Image) -> Vec<(u64, u64)> {
        Vec::new()
    }

    /// What only another process can set, through the new thread's procfs directory.
    fn restore_outside(_image: &Self::Image, _subject: &Subject<'_>) -> Result<(), Error> {
        Ok(())
    }
}
