//! Stopping every thread of a tree, and letting them go again.

use crate::arch::x86_64::interrupted;
use crate::error::{Error, Object};
use crate::tracee::{OnOurDeath, Outcome, Running, Stopped};
use crate::tree::{self, Life, Process};
use std::collections::BTreeSet;

/// A process none of whose threads runs.
#[derive(Debug)]
pub struct Frozen {
    pub process: Process,
    /// The leader first, unless it has ended before the others. A zombie has none.
    pub threads: Vec<Stopped>,
}

/// Rounds of looking for threads that were made while we stopped the others.
const LOOKS_MAX: u32 = 1000;

/// Stops the tree: nobody in it makes one more step until `thaw`.
///
/// A thread that is still running may make new ones, so we look again until a look finds none.
pub fn freeze(root: i32) -> Result<Vec<Frozen>, Error> {
    let mut stopped: Vec<Stopped> = Vec::new();
    let mut known = BTreeSet::new();
    for _ in 0..LOOKS_MAX {
        let processes = tree::walk(root)?;
        let found = seize_new(&processes, &mut known)?;
        if found.is_empty() {
            return gather(processes, stopped);
        }
        // First ask all, then wait for each by its id: waiting for any is quadratic.
        found.iter().for_each(Running::interrupt);
        for running in found {
            if let Outcome::Alive(thread) = running.wait_stopped()? {
                stopped.push(thread);
            }
        }
    }
    Err(Error::invalid(
        "freeze",
        Object::Process { pid: root },
        "it makes threads faster than they can be stopped",
    ))
}

fn seize_new(
    processes: &[Process],
    known: &mut BTreeSet<i32>,
) -> Result<Vec<Running>, Error> {
    let mut found = Vec::new();
    for process in processes.iter().filter(|process| process.life != Life::Zombie) {
        for tid in tree::threads(process.pid)? {
            if !known.insert(tid) {
                continue;
            }
            match Running::seize(process.pid, tid, OnOurDeath::Runs) {
                Ok(Outcome::Alive(running)) => found.push(running),
                Ok(Outcome::Gone) => {}
                // A thread that is just ending cannot be attached to any more.
                Err(_) if is_ending(process.pid, tid) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

fn is_ending(pid: i32, tid: i32) -> bool {
    let path = format!("/proc/{pid}/task/{tid}/stat");
    std::fs::read_to_string(path).map_or(true, |text| {
        text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

fn gather(processes: Vec<Process>, stopped: Vec<Stopped>) -> Result<Vec<Frozen>, Error> {
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
    Ok(frozen)
}

/// Lets the tree go on as if nothing had been asked.
pub fn thaw(tree: Vec<Frozen>) -> Result<(), Error> {
    let mut result = Ok(());
    for thread in tree.into_iter().flat_map(|frozen| frozen.threads) {
        // Every thread is let go even if one fails: a stuck one must not keep the others.
        result = result.and(release(thread));
    }
    result
}

fn release(thread: Stopped) -> Result<(), Error> {
    let registers = thread.registers()?;
    let next = interrupted::on_the_same_task(&registers, signal_waits(&thread)?);
    if next.rip != registers.rip {
        thread.set_registers(&next)?;
    }
    thread.release()
}

/// Whether a signal is queued that the thread does not block.
pub(crate) fn signal_waits(thread: &Stopped) -> Result<bool, Error> {
    let mask = thread.signal_mask()?;
    let queued = thread.queued_signals(false)?.into_iter().chain(thread.queued_signals(true)?);
    Ok(queued.map(|info| signal_number(&info)).any(|number| {
        (1..=64).contains(&number) && mask & (1 << (number - 1)) == 0
    }))
}

/// `si_signo`, the first word of a siginfo.
pub(crate) fn signal_number(info: &[u8]) -> i32 {
    info.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn state(pid: i32) -> char {
        Process::read(pid).unwrap().stat.state
    }

    #[test]
    fn stops_a_tree_and_lets_it_go() {
        let mut shell = Command::new("sh").args(["-c", "while :; do :; done & wait"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        let root = i32::try_from(shell.id()).unwrap();
        let frozen = freeze(root).unwrap();
        let pids: Vec<i32> = frozen.iter().map(|f| f.process.pid).collect();
        assert_eq!(pids.len(), 2);
        assert!(pids.iter().all(|&pid| state(pid) == 't'));
        thaw(frozen).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(pids.iter().all(|&pid| "RS".contains(state(pid))));
        for pid in pids {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
        }
        shell.wait().unwrap();
    }
}
