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

/// The thread ids of a process, its own first; none when it has ended.
pub fn threads(pid: i32) -> Result<Vec<i32>, Error> {
    let entries = match fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
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
    use std::process::{Command, Stdio};

    #[test]
    fn finds_grandchildren_and_parents_come_first() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'sleep 30 & wait' & wait"])
            .stdout(Stdio::null())
            .process_group_zero()
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let root = i32::try_from(shell.id()).unwrap();
        let tree = walk(root).unwrap();
        assert_eq!(tree.len(), 3);
        assert_eq!(tree[0].pid, root);
        assert_eq!(tree[1].stat.ppid, root);
        assert_eq!(tree[2].stat.ppid, tree[1].pid);
        for process in tree.iter().rev() {
            let pid = nix::unistd::Pid::from_raw(process.pid);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
        }
        shell.wait().unwrap();
    }

    trait ProcessGroupZero {
        fn process_group_zero(&mut self) -> &mut Self;
    }
    impl ProcessGroupZero for Command {
        fn process_group_zero(&mut self) -> &mut Self {
            std::os::unix::process::CommandExt::process_group(self, 0)
        }
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error_that_names_it() {
        let error = walk(i32::MAX).unwrap_err();
        assert_eq!(error.to_string(), "look at process 2147483647");
    }
}
