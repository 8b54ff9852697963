//! Why a process cannot be moved, whatever it holds.

use super::{Counting, tracees};
use crate::error::{Error, Object, OnObject as _};
use crate::refusal::Refusal;
use crate::tree::{Life, Process};
use std::fs;
use std::time::Duration;

/// Everything in the way, for every process.
pub(super) fn examine(tree: &[Process]) -> Result<Vec<Refusal>, Error> {
    let mut refusals = Vec::new();
    for process in tree {
        match examine_one(process) {
            // It ended while we looked; but the root is what was asked for.
            Err(error) if error.is_gone() && process.pid != tree[0].pid => {}
            other => refusals.extend(other?),
        }
    }
    refusals.extend(tracees::examine(tree)?);
    refusals.extend(sharing_memory(tree));
    Ok(refusals)
}

fn examine_one(process: &Process) -> Result<Option<Refusal>, Error> {
    let pid = process.pid;
    if process.is_kernel_thread() {
        return Ok(Some(refusal(pid, "is a kernel thread", "Name a process of your own.")));
    }
    if pid == 1 {
        return Ok(Some(refusal(
            pid,
            "is the init process of its PID namespace",
            "Name one of the processes that it started.",
        )));
    }
    if is_us(pid) {
        return Ok(Some(refusal(
            pid,
            "is the program that is to move it",
            "Ask from outside of the tree.",
        )));
    }
    if process.life == Life::Zombie {
        return Ok(None);
    }
    Ok(tracees::tracer_of(pid)?.map(|tracer| {
        let reason = format!("is traced by process {tracer}");
        refusal(pid, &reason, "End the debugger or tracer first.")
    }))
}

/// A process that has ended cannot be the root: there is nothing to move.
pub(super) fn examine_root(root: &Process) -> Option<Refusal> {
    (root.life == Life::Zombie).then(|| {
        refusal(root.pid, "has ended and waits for its parent", "There is nothing left to move.")
    })
}

fn refusal(pid: i32, reason: &str, advice: &str) -> Refusal {
    let object = Object::Process { pid };
    Refusal { object, reason: reason.to_owned(), advice: advice.to_owned() }
}

fn is_us(pid: i32) -> bool {
    u32::try_from(pid) == Ok(std::process::id())
}

/// Processes that run in one address space for good: CLONE_VM without CLONE_THREAD. One that was
/// just vforked does so for a moment.
fn sharing_memory(tree: &[Process]) -> Vec<Refusal> {
    let children = || tree.iter().skip(1).filter(|process| process.is_vforked());
    for _ in 0..VFORK_LOOKS {
        if children().next().is_none() {
            return Vec::new();
        }
        std::thread::sleep(VFORK_WAIT);
    }
    children()
        .map(|child| {
            let reason = format!("shares its memory with process {}", child.stat.ppid);
            refusal(child.pid, &reason, "Ask again when it has started its program (vfork).")
        })
        .collect()
}

const VFORK_WAIT: Duration = Duration::from_millis(10);
const VFORK_LOOKS: u32 = 100;

/// Bytes of anonymous memory, from smaps_rollup. Where it lacks the proportional ones (Linux 5.9),
/// every page counts in each process.
pub(super) fn memory_bytes(pid: i32, counting: Counting) -> Result<u64, Error> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // A process that is just ending has no memory any more.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(0),
        Err(error) => return Err(error).on("measure", || Object::Process { pid }),
    };
    Ok(anonymous_bytes(&text, counting))
}

fn anonymous_bytes(rollup: &str, counting: Counting) -> u64 {
    let is_proportional = counting == Counting::Once && rollup.contains("\nPss_Anon:");
    let names = if is_proportional { ["Pss_Anon:", "SwapPss:"] } else { ["Anonymous:", "Swap:"] };
    names.iter().map(|name| kibibytes(rollup, name) << 10).sum()
}

pub(super) fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_counts_once_unless_sharing_ends() {
        let new = "Rss: 9 kB\nPss_Anon:  10 kB\nAnonymous: 80 kB\nSwap: 8 kB\nSwapPss: 1 kB\n";
        assert_eq!(anonymous_bytes(new, Counting::Once), 11 << 10);
        assert_eq!(anonymous_bytes(new, Counting::InEach), 88 << 10);
        let old = "Rss: 9 kB\nAnonymous: 80 kB\nSwap: 8 kB\nSwapPss: 1 kB\n";
        assert_eq!(anonymous_bytes(old, Counting::Once), 88 << 10);
    }

    #[test]
    fn we_do_not_move_ourselves_and_init_stays() {
        let us = i32::try_from(std::process::id()).unwrap();
        for pid in [1, us] {
            let process = Process::read(pid).unwrap();
            assert!(examine_one(&process).unwrap().is_some(), "{pid}");
        }
    }
}
