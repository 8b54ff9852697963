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
use std::collections::HashSet;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, thread};

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
    /// All that there can ever be, if we are bound to none: a thread that was told which ones there
    /// are would not follow a cpuset(7) that grows. `None` where there are more than
    /// sched_getaffinity(2) has room for here.
    processors: Option<CpuSet>,
}

static ASKED: Mutex<Asked> =
    Mutex::new(Asked { yielding: 0, aside: 0, urgent: 0, half: Half::Lower, usual: None });

/// The part of the processors to which our threads keep. A host that receives one tree and gives
/// another away has them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
/// Where half is one processor, the group's share of it is constant, and nobody waited longer than
/// 5 ms (docs/decisions/0005-half-of-the-processors.md).
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

/// Starts a process with the nice value and on the processors that we were started with: a child is
/// born with those of the thread that makes it. Its session stays ours, and what that ranks.
pub(crate) fn as_usual<T>(start: impl FnOnce() -> T) -> T {
    let _rank = UsualForNow::begin();
    start()
}

/// The lock is not held meanwhile: another migration may be about to freeze its tree.
struct UsualForNow {
    thread: PhantomData<*const ()>,
}

impl UsualForNow {
    fn begin() -> Self {
        if let Some(usual) = lock().usual {
            set(0, usual.nice);
            keep_to(0, usual.processors);
        }
        Self { thread: PhantomData }
    }
}

impl Drop for UsualForNow {
    fn drop(&mut self) {
        let asked = lock();
        if let Some(usual) = asked.usual {
            set(0, asked.nice(usual));
            keep_to(0, asked.processors(usual));
        }
    }
}

/// How many processors we may use when nothing is copied.
pub(crate) fn processor_count() -> usize {
    let mask = as_usual(processors);
    mask.map_or(1, |mask| members(&mask).len())
}

fn change(how: impl FnOnce(&mut Asked)) {
    let mut asked = lock();
    let before = (asked.is_yielding(), asked.part());
    how(&mut asked);
    let usual = *asked.usual.get_or_insert_with(Usual::of_this_thread);
    if asked.is_yielding() != before.0 {
        let nice = asked.nice(usual);
        for_all_threads(|tid| set(tid, nice));
        set_session(nice);
    }
    if asked.part() != before.1 {
        let processors = asked.processors(usual);
        for_all_threads(|tid| keep_to(tid, processors));
    }
}

impl Asked {
    fn is_yielding(&self) -> bool {
        self.yielding > 0 && self.urgent == 0
    }

    /// `None`: everywhere.
    fn part(&self) -> Option<Half> {
        (self.aside > 0 && self.urgent == 0).then_some(self.half)
    }

    fn nice(&self, usual: Usual) -> i32 {
        if self.is_yielding() { lower(usual.nice) } else { usual.nice }
    }

    fn processors(&self, usual: Usual) -> Option<CpuSet> {
        let Some(half) = self.part() else { return usual.processors };
        usual.there_now().map(|all| half.of(&all))
    }
}

impl Usual {
    fn of_this_thread() -> Self {
        let now = processors();
        let is_bound = elsewhere(|| {
            keep_to(0, Some(all_processors()));
            processors() != now
        });
        let processors = if is_bound { now } else { now.map(|_| all_processors()) };
        Self { nice: priority::nice(0), processors }
    }

    fn there_now(self) -> Option<CpuSet> {
        elsewhere(|| {
            keep_to(0, self.processors);
            processors()
        })
    }
}

/// On a thread of its own, whose processors are nobody's concern afterwards.
fn elsewhere<T: Send>(look: impl FnOnce() -> T + Send) -> T {
    let looked = thread::scope(|scope| scope.spawn(look).join());
    looked.unwrap_or_else(|panic| resume_unwind(panic))
}

fn all_processors() -> CpuSet {
    let mut all = CpuSet::new();
    (0..CpuSet::count()).for_each(|cpu| all.set(cpu).expect("it is one of the set's"));
    all
}

fn members(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu) == Ok(true)).collect()
}

impl Half {
    /// One processor at least, which is all of them where there is one.
    fn of(self, all: &CpuSet) -> CpuSet {
        let there = members(all);
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

/// Also those that a thread makes before its turn comes: they are born as it was.
fn for_all_threads(mut apply: impl FnMut(i32)) {
    let mut seen = HashSet::new();
    loop {
        let new: Vec<i32> = threads().filter(|tid| seen.insert(*tid)).collect();
        if new.is_empty() {
            return;
        }
        new.into_iter().for_each(&mut apply);
    }
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
        assert_eq!(processor_count(), members(&everywhere).len());
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
    }

    #[test]
    fn one_processor_is_both_halves() {
        let mut only = CpuSet::new();
        only.set(5).unwrap();
        assert_eq!((Half::Lower.of(&only), Half::Upper.of(&only)), (only, only));
    }
}
