//! How our threads rank among the others of this host: behind them and on half of the processors
//! while a tree is copied ahead, before them and everywhere while it stands still.
//!
//! Copying ahead keeps every processor busy for seconds, and the tree that is copied, with all its
//! neighbours, would feel it as pauses longer than the freeze itself. In the freeze it is the other
//! way round: whoever keeps us from running keeps the tree from running. Where the host does not
//! allow it (no CAP_SYS_NICE), nothing changes and nothing fails: it is only a matter of time.

use crate::sys::priority;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, getpid, getsid};
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
    aside: u32,
    urgent: u32,
    half: Half,
    /// As we were started.
    usual: Option<Usual>,
}

#[derive(Clone, Copy, Debug)]
struct Usual {
    nice: i32,
    /// `None` where there are more than sched_getaffinity(2) has room for here.
    processors: Option<CpuSet>,
}

static ASKED: Mutex<Asked> =
    Mutex::new(Asked { yielding: 0, aside: 0, urgent: 0, half: Half::Lower, usual: None });

/// The part of the processors to which our threads keep. A host that receives one tree and gives
/// another away has them apart.
#[derive(Clone, Copy, Debug, Default)]
pub enum Half {
    #[default]
    Lower,
    Upper,
}

/// While it lives, all threads of this process keep to one half of the processors that it may use,
/// unless a tree stands still.
///
/// The other half is the programs'. It is more than courtesy. A scheduler with groups of tasks
/// (cgroups, and autogroups: one for each session) shifts the account of a group whenever its load on
/// a processor changes, and Linux 6.18 shifts it to the group's advantage: threads that wake one
/// another on several processors have kept others from running for 50 ms, and in a trial for seconds.
/// A group on one processor has a constant share there, and nobody waits longer than 5 ms
/// (docs/kernel-notes.md).
#[derive(Debug)]
pub struct Aside(());

impl Aside {
    pub fn begin(half: Half) -> Self {
        change(|asked| {
            asked.half = half;
            asked.aside += 1;
        });
        Self(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        change(|asked| asked.aside -= 1);
    }
}

/// While it lives, all threads of this process yield to others and keep [`Aside`], unless a tree
/// stands still.
#[derive(Debug)]
pub struct Yielding {
    _aside: Aside,
}

impl Yielding {
    pub fn begin(half: Half) -> Self {
        change(|asked| asked.yielding += 1);
        Self { _aside: Aside::begin(half) }
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

/// Starts a process that is not of our ranks: a child is born with those of the thread that made it.
pub(crate) fn as_usual<T>(start: impl FnOnce() -> T) -> T {
    let asked = lock();
    let Some(usual) = asked.usual else { return start() };
    let (nice, processors) = (priority::nice(0), processors());
    set(0, usual.nice);
    keep_to(0, usual.processors);
    let started = start();
    set(0, nice);
    keep_to(0, processors);
    started
}

fn change(how: impl FnOnce(&mut Asked)) {
    let mut asked = lock();
    let before = (asked.is_yielding(), asked.is_aside());
    how(&mut asked);
    let usual = *asked.usual.get_or_insert_with(Usual::of_this_thread);
    let after = (asked.is_yielding(), asked.is_aside());
    if after.0 != before.0 {
        let nice = if after.0 { lower(usual.nice) } else { usual.nice };
        threads().for_each(|tid| set(tid, nice));
        set_session(nice);
    }
    if after.1 != before.1 {
        let half = usual.processors.map(|all| if after.1 { asked.half.of(&all) } else { all });
        threads().for_each(|tid| keep_to(tid, half));
    }
}

impl Asked {
    fn is_yielding(&self) -> bool {
        self.yielding > 0 && self.urgent == 0
    }

    fn is_aside(&self) -> bool {
        self.aside > 0 && self.urgent == 0
    }
}

impl Usual {
    fn of_this_thread() -> Self {
        Self { nice: priority::nice(0), processors: processors() }
    }
}

impl Half {
    /// One processor at least, which is all of them where there is one.
    fn of(self, all: &CpuSet) -> CpuSet {
        let there = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu) == Ok(true));
        let there: Vec<usize> = there.collect();
        let size = (there.len() / 2).max(1).min(there.len());
        let half = match self {
            Self::Lower => &there[..size],
            Self::Upper => &there[there.len() - size..],
        };
        let mut set = CpuSet::new();
        half.iter().for_each(|&cpu| set.set(cpu).expect("it was in such a set"));
        set
    }
}

fn processors() -> Option<CpuSet> {
    sched_getaffinity(Pid::from_raw(0)).ok()
}

/// Nothing changes for a thread that has ended, and where a cpuset(7) has changed meanwhile.
fn keep_to(tid: i32, processors: Option<CpuSet>) {
    let _ = processors.map(|set| sched_setaffinity(Pid::from_raw(tid), &set));
}

fn lower(usual: i32) -> i32 {
    (usual + NICE_STEPS).min(NICE_MAX)
}

fn threads() -> impl Iterator<Item = i32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok())
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
        let everywhere = processors().unwrap();
        let (lower_half, upper_half) = (Half::Lower.of(&everywhere), Half::Upper.of(&everywhere));
        let copying = Yielding::begin(Half::Upper);
        assert_eq!((priority::nice(0), processors()), (lower(usual), Some(upper_half)));
        as_usual(|| assert_eq!((priority::nice(0), processors()), (usual, Some(everywhere))));
        assert_eq!((priority::nice(0), processors()), (lower(usual), Some(upper_half)));
        let frozen = Urgent::begin();
        assert_eq!((priority::nice(0), policy()), (usual, libc::SCHED_RR));
        assert_eq!(processors(), Some(everywhere));
        drop(frozen);
        assert_eq!((priority::nice(0), policy()), (lower(usual), libc::SCHED_OTHER));
        let another = Yielding::begin(Half::Upper);
        drop(copying);
        assert_eq!(priority::nice(0), lower(usual));
        drop(another);
        assert_eq!((priority::nice(0), processors()), (usual, Some(everywhere)));
        let aside = Aside::begin(Half::Lower);
        assert_eq!((priority::nice(0), processors()), (usual, Some(lower_half)));
        drop(aside);
        assert_eq!(processors(), Some(everywhere));
        let alone = ThreadYields::begin();
        assert_eq!(priority::nice(0), lower(usual));
        drop(alone);
        assert_eq!(priority::nice(0), usual);
    }

    #[test]
    fn the_halves_have_no_processor_in_common() {
        let of = |cpus: &[usize]| {
            let mut set = CpuSet::new();
            cpus.iter().for_each(|&cpu| set.set(cpu).unwrap());
            set
        };
        assert_eq!(Half::Lower.of(&of(&[1, 4, 6])), of(&[1]));
        assert_eq!(Half::Upper.of(&of(&[1, 4, 6])), of(&[6]));
        assert_eq!(Half::Lower.of(&of(&[0, 1, 2, 3])), of(&[0, 1]));
        assert_eq!(Half::Upper.of(&of(&[0, 1, 2, 3])), of(&[2, 3]));
        assert_eq!(Half::Upper.of(&of(&[5])), of(&[5]));
    }
}
