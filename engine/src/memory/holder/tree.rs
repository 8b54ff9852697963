//! The processes that must die before their userfaultfds are closed.

use super::Kept;
use crate::sys;
use crate::sys::uffd_missing::{MissingUffd, Placed};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

/// How soon it is looked again whether the memory is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) processes: Vec<OwnedFd>,
    pub(super) cgroups: Vec<OwnedFd>,
}

impl Tree {
    /// Returns when no address space that one of these serves exists any more. A process that
    /// cannot be killed keeps us here, and waits for its pages: blocked is better than wrong.
    pub(super) fn kill(&self, kept: &[Kept]) {
        let mut pause = LOOK_AGAIN;
        let descendants = descendants(&self.processes);
        loop {
            self.kill_once(&descendants);
            if kept.iter().all(is_gone) {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_AGAIN_MAX);
        }
    }

    /// ESRCH is a process that is dead already; anything else shows in its memory staying.
    fn kill_once(&self, descendants: &[OwnedFd]) {
        for process in self.processes.iter().chain(descendants) {
            let _ = sys::holder::kill(process.as_fd());
        }
        for cgroup in &self.cgroups {
            kill_cgroup(cgroup);
        }
    }
}

/// Found before anything is killed: an orphan no longer says whose child it was.
fn descendants(processes: &[OwnedFd]) -> Vec<OwnedFd> {
    let parents: HashMap<i32, i32> = procfs::process::all_processes()
        .into_iter()
        .flatten()
        .filter_map(|process| process.ok()?.stat().ok())
        .map(|stat| (stat.pid, stat.ppid))
        .collect();
    let roots: Vec<i32> = processes.iter().filter_map(pid_of).collect();
    let below = |pid: i32| {
        let mut line = std::iter::successors(parents.get(&pid), |parent| parents.get(*parent));
        line.any(|parent| roots.contains(parent))
    };
    parents
        .keys()
        .filter(|pid| below(**pid))
        .filter_map(|pid| sys::holder::pidfd_open(*pid).ok())
        .collect()
}

/// From fdinfo of the pidfd; -1 when it is dead.
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

/// cgroup v2 kills in one go (Linux 5.14); in v1 there is only the list.
fn kill_cgroup(directory: &OwnedFd) {
    let open = |name: &str, flags| openat(directory, name, flags, Mode::empty()).map(File::from);
    if let Ok(mut file) = open("cgroup.kill", OFlag::O_WRONLY) {
        let _ = file.write_all(b"1");
        return;
    }
    let mut text = String::new();
    if let Ok(mut file) = open("cgroup.procs", OFlag::O_RDONLY) {
        let _ = file.read_to_string(&mut text);
    }
    for pid in text.lines().filter_map(|line| line.parse().ok()) {
        let _ = sys::holder::pidfd_open(pid).and_then(|pidfd| sys::holder::kill(pidfd.as_fd()));
    }
}

/// Whether the memory that this descriptor serves is gone. What cannot say is not waited for.
fn is_gone(kept: &Kept) -> bool {
    let Kept::Held { fd, .. } = kept else { return true };
    let probe = fd.try_clone().and_then(MissingUffd::new).and_then(|uffd| uffd.probe(0x1000_0000));
    !matches!(probe, Ok(placed) if placed != Placed::Gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asleep::Asleep;
    use std::path::Path;

    #[test]
    fn everything_in_a_watched_cgroup_dies() {
        let version_2 = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let Some(root) =
            version_2.iter().find(|root| Path::new(root).join("cgroup.procs").exists())
        else {
            return crate::skipped::skip("no cgroup v2 here");
        };
        let cgroup = Path::new(root).join(format!("holder-test-{}", std::process::id()));
        if let Err(cause) = std::fs::create_dir(&cgroup) {
            return crate::skipped::skip(&format!("no cgroup can be made: {cause}"));
        }
        let mut sleeper = Asleep::start();
        std::fs::write(cgroup.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        let cgroups = vec![File::open(&cgroup).unwrap().into()];
        Tree { processes: Vec::new(), cgroups }.kill(&[]);
        let status = sleeper.child().wait().unwrap();
        std::fs::remove_dir(&cgroup).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }
}
