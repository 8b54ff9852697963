//! Whoever has ended of a keeper's children: those that it has started, and those that lost their
//! parent.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

#[derive(Debug)]
pub(super) struct Children {
    changed: Stream,
    ended: VecDeque<Ended>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) pid: Pid,
    pub(super) status: ExitStatus,
}

impl Children {
    pub(super) fn watch() -> io::Result<Self> {
        // Whoever has started us may have blocked it, or others: the program would inherit that.
        SigSet::all().thread_unblock()?;
        Ok(Self { changed: signal(SignalKind::child())?, ended: VecDeque::new() })
    }

    /// Nothing is lost when it is given up in the middle.
    pub(super) async fn next(&mut self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return Ok(ended);
            }
            if self.reap()? == Left::Some && self.ended.is_empty() {
                self.changed.recv().await;
            } else if self.ended.is_empty() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The end of this one; those of others are still told by `next`.
    pub(super) async fn end_of(&mut self, pid: Pid) -> io::Result<ExitStatus> {
        loop {
            if let Some(at) = self.ended.iter().position(|ended| ended.pid == pid) {
                return Ok(self.ended.remove(at).map(|ended| ended.status).unwrap_or_default());
            }
            let known = self.ended.len();
            if self.reap()? == Left::Nobody && self.ended.len() == known {
                return Err(io::Error::other(format!("process {pid} is no child any more")));
            }
            if self.ended.len() == known {
                self.changed.recv().await;
            }
        }
    }

    /// Ends every process of the namespace but us, who are its first: kill(2), -1.
    pub(super) async fn end_all(&mut self) -> io::Result<()> {
        loop {
            match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
            if self.reap()? == Left::Nobody {
                self.ended.clear();
                return Ok(());
            }
            self.changed.recv().await;
        }
    }

    fn reap(&mut self) -> io::Result<Left> {
        loop {
            let (pid, raw) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, (code & 0xff) << 8),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal as i32),
                Ok(WaitStatus::StillAlive) => return Ok(Left::Some),
                Ok(_) => continue,
                Err(Errno::ECHILD) => return Ok(Left::Nobody),
                Err(errno) => return Err(errno.into()),
            };
            self.ended.push_back(Ended { pid, status: ExitStatus::from_raw(raw) });
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Some,
    Nobody,
}
