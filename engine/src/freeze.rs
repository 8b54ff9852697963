//! Stopping every thread of a tree, and letting them go again.

mod leftover;

use crate::arch::x86_64::interrupted;
use crate::error::{Error, Object, OnObject as _};
use crate::sys::ptrace::Event;
use crate::tracee::{OnOurDeath, Outcome, Running, STOP_WAIT, Stopped, Stopping};
use crate::tree::{self, Life, Process};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// A process none of whose threads runs.
#[derive(Debug)]
pub struct Frozen {
    pub process: Process,
    /// The leader first, unless it has ended before the others. A zombie has none.
    pub threads: Vec<Stopped>,
}

/// The tree standing still. Dropping it thaws it.
#[derive(Debug)]
pub struct FrozenTree {
    processes: Vec<Frozen>,
    since: Instant,
}

/// How long a thread may take in all whom the kernel keeps asleep: a disk that is slow, and not one
/// that is gone.
const DEEP_SLEEP_MAX: Duration = Duration::from_secs(10);

/// Between two looks at a vforked child.
const VFORK_WAIT: Duration = Duration::from_millis(1);

/// Rounds of looking for threads that were made while we stopped the others.
const LOOKS_MAX: u32 = 1000;

/// Stops the tree: nobody in it makes one more step until `thaw`.
///
/// A thread that is still running may make new ones, so we look again until a look finds none.
pub fn freeze(root: i32) -> Result<FrozenTree, Error> {
    freeze_while(root, || tree::walk(root))
}

/// A thread that writes to a slow disk stops when the kernel is done with it. The others go on until
/// then, and are stopped again beside it.
fn freeze_while(
    root: i32,
    look: impl Fn() -> Result<Vec<Process>, Error>,
) -> Result<FrozenTree, Error> {
    let (mut stopped, mut late) = (Vec::new(), Vec::new());
    let frozen = freeze_into(root, look, &mut stopped, &mut late);
    match frozen {
        Ok((processes, since)) => {
            let processes = gather(processes, stopped);
            leftover::clear(&processes);
            Ok(FrozenTree { processes, since })
        }
        Err(error) => {
            // One thread that cannot be stopped must not leave the others stopped.
            release_all(stopped);
            Err(error)
        }
    }
}

fn freeze_into(
    root: i32,
    look: impl Fn() -> Result<Vec<Process>, Error>,
    stopped: &mut Vec<Stopped>,
    late: &mut Vec<Running>,
) -> Result<(Vec<Process>, Instant), Error> {
    let end = Instant::now() + DEEP_SLEEP_MAX;
    loop {
        if late.is_empty() {
            let since = Instant::now();
            let processes = stop_all(root, &look, stopped, late)?;
            if late.is_empty() {
                return Ok((processes, since));
            }
        }
        release_all(std::mem::take(stopped));
        if let (true, Some(running)) = (Instant::now() > end, late.first()) {
            return Err(running.sleeps_too_deep());
        }
        wake(late, stopped)?;
    }
}

fn release_all(stopped: Vec<Stopped>) {
    for thread in stopped {
        if let Err(error) = release(thread, false) {
            tracing::warn!(%error, "a thread may still be stopped");
        }
    }
}

/// Waits for those who were asked to stop and could not, but not longer than one who has stopped
/// meanwhile can stand still.
fn wake(late: &mut Vec<Running>, stopped: &mut Vec<Stopped>) -> Result<(), Error> {
    let end = Instant::now() + STOP_WAIT;
    for running in std::mem::take(late) {
        match running.wait_until(end)? {
            Stopping::Stopped(thread) => stopped.push(thread),
            Stopping::Gone => {}
            Stopping::NotYet(running) => late.push(running),
        }
    }
    Ok(())
}

/// Returns early when some are late.
fn stop_all(
    root: i32,
    look: impl Fn() -> Result<Vec<Process>, Error>,
    stopped: &mut Vec<Stopped>,
    late: &mut Vec<Running>,
) -> Result<Vec<Process>, Error> {
    let mut known: BTreeSet<i32> = stopped.iter().map(Stopped::tid).collect();
    for _ in 0..LOOKS_MAX {
        let processes = look()?;
        // Stopped, a vforked child would keep its parent from ever stopping. It is let run to its
        // execve(2), which is soon.
        let vforked = processes.iter().skip(1).any(Process::is_vforked);
        let known_before = known.len();
        let found = seize_new(&processes, &mut known)?;
        // One that was gone when we reached for it: this look still shows it alive.
        if found.is_empty() && known.len() > known_before {
            continue;
        }
        if found.is_empty() && vforked {
            thread::sleep(VFORK_WAIT);
            continue;
        }
        if found.is_empty() {
            return Ok(processes);
        }
        stop_these(found, stopped, late)?;
        if !late.is_empty() {
            return Ok(processes);
        }
    }
    Err(Error::invalid(
        "freeze",
        Object::Process { pid: root },
        "it makes threads faster than they can be stopped",
    ))
}

/// First asks all, then waits for each by its id: waiting for any is quadratic. An error is told
/// after all others have been waited for.
fn stop_these(
    found: Vec<Running>,
    stopped: &mut Vec<Stopped>,
    late: &mut Vec<Running>,
) -> Result<(), Error> {
    found.iter().for_each(Running::interrupt);
    let mut result = Ok(());
    for running in found {
        match running.wait_briefly() {
            Ok(Stopping::Stopped(thread)) => stopped.push(thread),
            Ok(Stopping::Gone) => {}
            Ok(Stopping::NotYet(running)) => late.push(running),
            Err(error) => result = result.and(Err(error)),
        }
    }
    result
}

/// Stops one process and not its children.
pub(crate) fn freeze_one(pid: i32) -> Result<FrozenTree, Error> {
    freeze_while(pid, || Ok(vec![Process::read(pid)?]))
}

fn seize_new(processes: &[Process], known: &mut BTreeSet<i32>) -> Result<Vec<Running>, Error> {
    let mut found = Vec::new();
    let root = processes[0].pid;
    let stoppable = |p: &&Process| p.life != Life::Zombie && (p.pid == root || !p.is_vforked());
    for process in processes.iter().filter(stoppable) {
        for tid in tree::threads(process.pid)? {
            if !known.insert(tid) {
                continue;
            }
            match Running::seize(process.pid, tid, OnOurDeath::Runs)? {
                Outcome::Alive(running) => found.push(running),
                Outcome::Gone => {}
            }
        }
    }
    Ok(found)
}

fn gather(processes: Vec<Process>, stopped: Vec<Stopped>) -> Vec<Frozen> {
    let mut frozen: Vec<Frozen> =
        processes.into_iter().map(|process| Frozen { process, threads: Vec::new() }).collect();
    for thread in stopped {
        // A thread may have died between its stop and now only by SIGKILL; then its whole
        // process is gone, and so is the thread.
        if let Some(owner) = frozen.iter_mut().find(|f| f.process.pid == thread.pid()) {
            owner.threads.push(thread);
        }
    }
    for owner in &mut frozen {
        owner.threads.sort_by_key(|thread| (thread.tid() != thread.pid(), thread.tid()));
    }
    frozen
}

/// Lets the tree go on as if nothing had been asked.
fn thaw(tree: Vec<Frozen>, guarded: bool) -> Result<(), Error> {
    let mut result = Ok(());
    for frozen in tree {
        for (index, thread) in frozen.threads.into_iter().enumerate() {
            let released = match release(thread, guarded && index == 0) {
                // It was killed while it stood still, and went its way without us.
                Err(error) if error.is_gone() => Ok(()),
                other => other,
            };
            // Every thread is let go even if one fails: a stuck one must not keep the others.
            result = result.and(released);
        }
    }
    result
}

/// Goes on where it stood. A thread whose process has the guard's SIGSTOP pending meets it first.
pub(crate) fn release(thread: Stopped, swallow_stop: bool) -> Result<(), Error> {
    let registers = thread.registers()?;
    let next = interrupted::on_the_same_task(&registers, signal_waits(&thread)?);
    if next.rip != registers.rip {
        thread.set_registers(&next)?;
    }
    if swallow_stop {
        return thread.release_without(libc::SIGSTOP);
    }
    thread.release()
}

impl FrozenTree {
    pub fn processes(&self) -> &[Frozen] {
        &self.processes
    }

    /// When the first of its threads was asked to stop, of those that ran to the end.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Any stopped thread of a process, if it has one.
    pub(crate) fn thread_of(&self, pid: i32) -> Option<&Stopped> {
        self.processes.iter().find(|frozen| frozen.process.pid == pid)?.threads.first()
    }

    /// Lets the tree go on as if nothing had been asked.
    pub fn thaw(mut self) -> Result<(), Error> {
        thaw(std::mem::take(&mut self.processes), false)
    }

    /// From here on our death must not let the tree run: a SIGSTOP waits for every process. It
    /// takes effect without one more instruction if we die; `Held::thaw` swallows it.
    ///
    /// On an error the tree goes on.
    pub fn hold(mut self) -> Result<Held, Error> {
        let held = Held { processes: std::mem::take(&mut self.processes) };
        match held.guard() {
            Ok(()) => Ok(held),
            Err(error) => {
                // Some of them have their SIGSTOP already: it is taken away again.
                held.thaw()?;
                Err(error)
            }
        }
    }
}

/// Until the permit is given a tree must never be left frozen.
impl Drop for FrozenTree {
    fn drop(&mut self) {
        if let Err(error) = thaw(std::mem::take(&mut self.processes), false) {
            tracing::warn!(%error, "a thread may still be stopped");
        }
    }
}

/// A tree whose right to run is being given away, or was.
///
/// Dropping it does nothing: thawing could make two of it. Somebody who knows says which.
#[derive(Debug)]
pub struct Held {
    processes: Vec<Frozen>,
}

impl Held {
    fn guard(&self) -> Result<(), Error> {
        for frozen in self.processes.iter().filter(|frozen| !frozen.threads.is_empty()) {
            let pid = frozen.process.pid;
            kill(Pid::from_raw(pid), Signal::SIGSTOP).on("guard", || Object::Process { pid })?;
            // A frozen thread answers until somebody kills it, and who was killed here must not go
            // on elsewhere. As late as can be: the signal above goes to a dead process as well.
            frozen.threads[0].signal_mask()?;
        }
        Ok(())
    }

    pub fn pids(&self) -> Vec<i32> {
        self.processes.iter().map(|frozen| frozen.process.pid).collect()
    }

    /// The destination has not got it: it goes on here.
    pub fn thaw(self) -> Result<(), Error> {
        thaw(self.processes, true)
    }

    /// It runs elsewhere: what is left here is the shell of it.
    pub fn end(self) {
        for frozen in self.processes.iter().rev() {
            crate::stage::kill(frozen.process.pid);
        }
        // The leader last: it is not reported dead before all others were waited for.
        for thread in self.processes.iter().flat_map(|frozen| frozen.threads.iter().rev()) {
            // A killed thread can only be dead; its parent gets to know when we have waited.
            while !matches!(crate::sys::ptrace::wait(thread.tid()), Ok(Event::Gone) | Err(_)) {}
        }
    }
}

/// Whether a signal is queued that the thread does not block.
pub(crate) fn signal_waits(thread: &Stopped) -> Result<bool, Error> {
    let mask = thread.signal_mask()?;
    let queued = thread.queued_signals(false)?.into_iter().chain(thread.queued_signals(true)?);
    Ok(queued
        .map(|info| signal_number(&info))
        .any(|number| (1..=64).contains(&number) && mask & (1 << (number - 1)) == 0))
}

/// `si_signo`, the first word of a siginfo.
pub(crate) fn signal_number(info: &[u8]) -> i32 {
    info.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asleep::Asleep;
    use std::cell::Cell;
    use std::process::{Child, Command};

    fn state(pid: i32) -> char {
        Process::read(pid).unwrap().stat.state
    }

    #[test]
    fn stops_a_tree_and_lets_it_go() {
        let shell = Asleep::run(Command::new("sh").args(["-c", "while :; do :; done & wait"]));
        let root = shell.pid();
        let frozen = freeze(root).unwrap();
        let pids: Vec<i32> = frozen.processes().iter().map(|f| f.process.pid).collect();
        assert_eq!(pids.len(), 2);
        assert!(pids.iter().all(|&pid| state(pid) == 't'));
        frozen.thaw().unwrap();
        thread::sleep(Duration::from_millis(20));
        assert!(pids.iter().all(|&pid| "RS".contains(state(pid))));
        for pid in pids {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }

    #[test]
    fn one_that_ends_between_a_look_and_our_grip_is_seen_as_a_zombie() {
        let shell = Asleep::run(Command::new("sh").args(["-c", "sleep 30 & wait"]));
        let root = shell.pid();
        let child = tree::walk(root).unwrap()[1].pid;
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            let seen = tree::walk(root)?;
            match looks.get() {
                1 => Ok(vec![seen[0].clone()]),
                2 => {
                    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
                    while state(child) != 'Z' {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Ok(seen)
                }
                _ => Ok(seen),
            }
        };
        let frozen = freeze_while(root, look).unwrap();
        let child = frozen.processes().iter().find(|f| f.process.pid == child).unwrap();
        assert_eq!(child.process.life, Life::Zombie);
        assert!(child.threads.is_empty());
        frozen.thaw().unwrap();
    }

    #[test]
    fn what_was_killed_while_it_stood_still_is_not_given_away() {
        let child = Asleep::start();
        let pid = child.pid();
        let frozen = freeze(pid).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let error = frozen.hold().unwrap_err();
        assert!(error.is_gone() && error.to_string().contains(&pid.to_string()), "{error}");
    }

    #[test]
    fn a_held_tree_that_somebody_continued_is_let_go_all_the_same() {
        let child = Asleep::start();
        let pid = child.pid();
        let held = freeze(pid).unwrap().hold().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
        held.thaw().unwrap();
        child.falls_asleep();
    }

    /// Kept asleep by the kernel for three seconds: vfork(2).
    const DEEP_SLEEPER: &str = "#include <unistd.h>\n\
        int main() { if (vfork() == 0) { sleep(3); _exit(0); } return pause(); }";

    fn deep_sleeper() -> Child {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) =
            (directory.path().join("sleeper.c"), directory.path().join("sleeper"));
        std::fs::write(&source, DEEP_SLEEPER).unwrap();
        let compiled = Command::new("cc").arg("-o").arg(&program).arg(&source).status().unwrap();
        assert!(compiled.success());
        Command::new(&program).spawn().unwrap()
    }

    #[test]
    fn a_thread_that_the_kernel_keeps_asleep_is_waited_for() {
        let mut sleeper = deep_sleeper();
        let pid = sleeper.id().cast_signed();
        let end = Instant::now() + Duration::from_secs(30);
        while state(pid) != 'D' && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        let frozen = freeze(pid).unwrap();
        assert_eq!(state(pid), 't');
        frozen.thaw().unwrap();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
