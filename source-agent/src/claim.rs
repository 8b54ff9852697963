//! A process is moved by one command at a time.
//!
//! The claim is a lock (flock(2)) on the process's directory in procfs. All commands and agents of
//! a host meet there, whatever their journals are, and no file is left behind by one that dies.

use crate::ending::Ending;
use engine::tree;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use protocol::Refusal;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;

/// Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: Option<Flock<File>>,
}

impl Claim {
    /// Of the process and all that descends from it: a Refusal if any of them is being moved
    /// already, alone or with the process that it descends from.
    pub(crate) fn on(root: i32) -> Result<Self, Ending> {
        // First claimed, then looked around: of two that overlap, one at least sees the other.
        let claimed = lock(root, FlockArg::LockExclusiveNonblock)?;
        for pid in ancestors(root).into_iter().chain(descendants(root)) {
            // Shared, so that two that look do not stand in each other's way.
            drop(lock(pid, FlockArg::LockSharedNonblock)?);
        }
        Ok(Self { _lock: claimed })
    }
}

/// `None` for a process that is not there (any more): that is told by who looks for it.
fn lock(pid: i32, how: FlockArg) -> Result<Option<Flock<File>>, Ending> {
    let directory = match File::open(format!("/proc/{pid}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match Flock::lock(directory, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Ending::Refused(vec![is_claimed(pid)])),
        Err((_, errno)) => Err(io::Error::from(errno).into()),
    }
}

fn is_claimed(pid: i32) -> Refusal {
    let advice = "Wait for its end, or cancel it; `migrate status` shows it.";
    Refusal::new(format!("process {pid}"), "is being moved by another command already", advice)
}

fn ancestors(pid: i32) -> Vec<i32> {
    let mut found = BTreeSet::new();
    let parent = |pid| tree::Process::read(pid).ok().map(|process| process.stat.ppid);
    let mut next = parent(pid);
    while let Some(pid) = next.filter(|&pid| pid > 0 && found.insert(pid)) {
        next = parent(pid);
    }
    found.into_iter().collect()
}

fn descendants(root: i32) -> Vec<i32> {
    let tree = tree::walk(root).unwrap_or_default();
    tree.iter().skip(1).map(|process| process.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ended_by_itself = self.0.kill();
            let _reaped = self.0.wait();
        }
    }

    fn refused(claimed: Result<Claim, Ending>) -> String {
        match claimed {
            Err(Ending::Refused(refusals)) => refusals[0].to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_is_faster_has_it_until_it_is_given_back() {
        let child = Ended(Command::new("sleep").arg("30").spawn().unwrap());
        let pid = child.0.id().cast_signed();
        let claim = Claim::on(pid).unwrap();
        assert!(refused(Claim::on(pid)).contains("is being moved by another command"));
        drop(claim);
        Claim::on(pid).unwrap();
    }

    #[test]
    fn neither_a_child_nor_a_parent_of_what_is_moved_is_moved_by_itself() {
        let child = Ended(Command::new("sleep").arg("30").spawn().unwrap());
        let (us, pid) = (std::process::id().cast_signed(), child.0.id().cast_signed());
        let of_child = lock(pid, FlockArg::LockExclusiveNonblock).unwrap();
        assert!(refused(Claim::on(us)).contains(&pid.to_string()));
        drop(of_child);
        let _ours = lock(us, FlockArg::LockExclusiveNonblock).unwrap();
        assert!(refused(Claim::on(pid)).contains(&us.to_string()));
    }

    #[test]
    fn what_does_not_exist_is_not_claimed_and_not_refused_here() {
        Claim::on(i32::MAX).unwrap();
    }
}
