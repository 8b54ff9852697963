//! A process and its descendants, as `/proc` shows them.

use crate::error::{Error, Object, OnObject as _};
use crate::sys::process::shares_memory;
use procfs::FromRead as _;
use procfs::process::Stat;
use std::collections::{BTreeSet, VecDeque};
use std::{fs, io};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Alive,
    /// Stopped by job control (SIGSTOP, SIGTSTP ...). A traced process does not show it.
    Stopped,
    /// Dead, and not yet waited for by its parent.
    Zombie,
}

/// A process as one reading of `/proc/PID/stat` tells it.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: i32,
    pub life: Life,
    pub stat: Stat,
}

/// PF_FORKNOEXEC of the kernel's `sched.h`.
const PF_FORKNOEXEC: u32 = 0x40;
/// PF_EXITING of the kernel's `sched.h`: its memory, files and directories go one after the other.
const PF_EXITING: u32 = 0x4;
/// PF_KTHREAD of the kernel's `sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;

impl Process {
    pub fn read(pid: i32) -> Result<Self, Error> {
        let stat = stat(pid).on("look at", || Object::Process { pid })?;
        let life = match stat.state {
            'Z' | 'X' => Life::Zombie,
            'T' => Life::Stopped,
            _ => Life::Alive,
        };
        Ok(Self { pid, life, stat })
    }

    /// Between vfork(2) and execve(2): it runs in its parent's memory, and its parent waits for it
    /// in a way that nothing but a kill ends.
    pub fn is_vforked(&self) -> bool {
        self.life != Life::Zombie && shares_memory(self.stat.ppid, self.pid)
    }

    /// It has not executed a program since it was forked, so its memory may be shared with others.
    pub fn is_fork(&self) -> bool {
        self.stat.flags & PF_FORKNOEXEC != 0
    }

    /// In memory, and no file's; 0 when it has ended. `statm` of proc_pid_statm(5).
    pub fn private_pages(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.pid)).unwrap_or_default();
        let mut numbers = text.split_ascii_whitespace().skip(1).flat_map(str::parse::<u64>);
        let (resident, shared) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        resident.saturating_sub(shared)
    }

    pub fn is_kernel_thread(&self) -> bool {
        self.stat.flags & PF_KTHREAD != 0
    }

    /// Distinguishes two processes that had the same id one after the other.
    pub fn start_ticks(&self) -> u64 {
        self.stat.starttime
    }
}

fn stat(pid: i32) -> io::Result<Stat> {
    let bytes = fs::read(format!("/proc/{pid}/stat"))?;
    Stat::from_read(&bytes[..]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The process and all its descendants, parents before their children.
///
/// What ends while we look is left out; the root must be there.
pub fn walk(root: i32) -> Result<Vec<Process>, Error> {
    let mut processes = vec![Process::read(root)?];
    let mut seen = BTreeSet::from([root]);
    let mut queue = VecDeque::from([root]);
    while let Some(parent) = queue.pop_front() {
        for pid in children(parent)? {
            if !seen.insert(pid) {
                continue;
            }
            match Process::read(pid) {
                Ok(process) => processes.push(process),
                Err(error) if error.is_gone() => continue,
                Err(error) => return Err(error),
            }
            queue.push_back(pid);
        }
    }
    Ok(processes)
}

/// Whether a thread runs on: it has not ended, and is not about to.
pub fn is_alive(tid: i32) -> bool {
    let ends = |stat: Stat| matches!(stat.state, 'Z' | 'X') || stat.flags & PF_EXITING != 0;
    stat(tid).is_ok_and(|stat| !ends(stat))
}

/// Every process that /proc shows, in no order.
pub fn every_pid() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(number));
    }
    Ok(pids)
}

/// The thread ids of a process, its own first; none when it has ended.
pub fn threads(pid: i32) -> Result<Vec<i32>, Error> {
    let entries = match fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if gone(&error) => return Ok(Vec::new()),
        other => other.on("list the threads of", || Object::Process { pid })?,
    };
    let mut tids: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    tids.sort_by_key(|&tid| (tid != pid, tid));
    Ok(tids)
}

/// `/proc/PID/task/TID/children`, Linux 3.5 with CONFIG_PROC_CHILDREN.
fn children(pid: i32) -> Result<Vec<i32>, Error> {
    let mut pids = Vec::new();
    for tid in threads(pid)? {
        match fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")) {
            Ok(text) => pids.extend(text.split_ascii_whitespace().filter_map(number)),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error).on("list the children of", || Object::Process { pid }),
        }
    }
    Ok(pids)
}

fn number(text: &str) -> Option<i32> {
    text.parse().ok()
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asleep::Asleep;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn finds_grandchildren_and_parents_come_first() {
        let mut outer = Command::new("sh");
        outer.args(["-c", "sh -c 'sleep 30 & wait' & wait"]).process_group(0);
        let shell = Asleep::run(outer.stdout(Stdio::null()));
        let root = shell.pid();
        let end = Instant::now() + Duration::from_secs(10);
        let tree = loop {
            let tree = walk(root).unwrap();
            if tree.len() == 3 {
                break tree;
            }
            assert!(Instant::now() < end, "the inner shell starts its child");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(tree[0].pid, root);
        assert_eq!(tree[1].stat.ppid, root);
        assert_eq!(tree[2].stat.ppid, tree[1].pid);
        // Parents first: one that has lost its child would end by itself.
        for process in &tree {
            let pid = nix::unistd::Pid::from_raw(process.pid);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
        }
    }

    #[test]
    fn the_private_pages_of_a_living_process_are_some_and_of_a_dead_one_none() {
        let us = Process::read(std::process::id().cast_signed()).unwrap();
        assert!(us.private_pages() > 0);
        assert_eq!(Process { pid: i32::MAX, ..us }.private_pages(), 0);
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error_that_names_it() {
        let error = walk(i32::MAX).unwrap_err();
        assert_eq!(error.to_string(), "look at process 2147483647");
    }
}
