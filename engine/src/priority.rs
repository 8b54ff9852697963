//! How our threads rank among the others of this host: behind them while a tree is copied ahead,
//! before them while it stands still.
//!
//! Copying ahead keeps every processor busy for seconds, and the tree that is copied, with all its
//! neighbours, would feel it as pauses longer than the freeze itself. In the freeze it is the other
//! way round: whoever keeps us from running keeps the tree from running. Where the host does not
//! allow it (no CAP_SYS_NICE), nothing changes and nothing fails: it is only a matter of time.

use crate::sys::priority;
use nix::unistd::{getpid, getsid};
use std::fs;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Added to our nice value: a third of the processor time of a normal thread, sched(7). Twice as many
/// steps made no gap shorter, and a tenth of the time is not enough to copy a busy program.
const NICE_STEPS: i32 = 5;
const NICE_MAX: i32 = 19;

/// What all migrations of this process ask for together.
#[derive(Debug, Default)]
struct Asked {
    yielding: u32,
    urgent: u32,
    /// The nice value that we were started with.
    usual: Option<i32>,
}

static ASKED: Mutex<Asked> = Mutex::new(Asked { yielding: 0, urgent: 0, usual: None });

/// While it lives, all threads of this process yield to others, unless a tree stands still.
#[derive(Debug)]
pub struct Yielding(());

impl Yielding {
    pub fn begin() -> Self {
        change(|asked| asked.yielding += 1);
        Self(())
    }
}

impl Drop for Yielding {
    fn drop(&mut self) {
        change(|asked| asked.yielding -= 1);
    }
}

/// While it lives, the thread that made it runs before all normal ones, and no thread of this
/// process yields to others.
#[derive(Debug)]
pub struct Urgent {
    thread: PhantomData<*const ()>,
}

impl Urgent {
    pub fn begin() -> Self {
        change(|asked| asked.urgent += 1);
        // Not allowed everywhere: see above.
        let _ = priority::set_realtime();
        Self { thread: PhantomData }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        // It was not allowed, then it is one still.
        let _ = priority::set_normal();
        change(|asked| asked.urgent -= 1);
    }
}

/// The calling thread alone yields to others while it lives.
#[derive(Debug)]
pub struct ThreadYields {
    usual: i32,
    thread: PhantomData<*const ()>,
}

impl ThreadYields {
    pub fn begin() -> Self {
        let usual = priority::nice(0);
        set(0, lower(usual));
        Self { usual, thread: PhantomData }
    }
}

impl Drop for ThreadYields {
    fn drop(&mut self) {
        set(0, self.usual);
    }
}

fn change(how: impl FnOnce(&mut Asked)) {
    let mut asked = lock();
    let before = asked.is_yielding();
    how(&mut asked);
    let usual = *asked.usual.get_or_insert_with(|| priority::nice(0));
    if asked.is_yielding() != before {
        set_all(if before { usual } else { lower(usual) });
    }
}

impl Asked {
    fn is_yielding(&self) -> bool {
        self.yielding > 0 && self.urgent == 0
    }
}

fn lower(usual: i32) -> i32 {
    (usual + NICE_STEPS).min(NICE_MAX)
}

fn set_all(nice: i32) {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
    let tids = threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    tids.for_each(|tid| set(tid, nice));
    set_session(nice);
}

/// Where autogroups are on, threads of different sessions are ranked by their sessions alone:
/// sched(7). A session that others are in too, a shell's, is left as it is.
fn set_session(nice: i32) {
    if getsid(None) == Ok(getpid()) {
        // Not there when the kernel has no autogroups, and then threads are ranked by themselves.
        let _ = fs::write("/proc/self/autogroup", nice.to_string());
    }
}

/// Going back needs CAP_SYS_NICE or RLIMIT_NICE. Without them we do not go there either.
fn set(tid: i32, nice: i32) {
    let before = priority::nice(tid);
    if nice > before && !may_go_back() {
        return;
    }
    // It has ended meanwhile.
    let _ = priority::set_nice(tid, nice);
}

fn may_go_back() -> bool {
    const CAP_SYS_NICE: u64 = 1 << 23;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    effective.is_some_and(|mask| mask & CAP_SYS_NICE != 0)
}

fn lock() -> MutexGuard<'static, Asked> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // The last but one number of stat(5) from the end is not fixed; the 41st field is.
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit(") ").next().unwrap();
        after_name.split(' ').nth(38).unwrap().parse().unwrap()
    }

    /// One test, because the rank is the whole process's.
    #[test]
    fn we_yield_while_copying_and_hurry_in_the_freeze() {
        if !may_go_back() {
            return crate::skipped::skip("no CAP_SYS_NICE");
        }
        let usual = priority::nice(0);
        let copying = Yielding::begin();
        assert_eq!(priority::nice(0), lower(usual));
        let frozen = Urgent::begin();
        assert_eq!((priority::nice(0), policy()), (usual, libc::SCHED_RR));
        drop(frozen);
        assert_eq!((priority::nice(0), policy()), (lower(usual), libc::SCHED_OTHER));
        let another = Yielding::begin();
        drop(copying);
        assert_eq!(priority::nice(0), lower(usual));
        drop(another);
        assert_eq!(priority::nice(0), usual);
        let alone = ThreadYields::begin();
        assert_eq!(priority::nice(0), lower(usual));
        drop(alone);
        assert_eq!(priority::nice(0), usual);
    }
}
