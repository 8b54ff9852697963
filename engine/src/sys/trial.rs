//! Children of ours to try things out on, and to try things out in: what a kernel does to them is
//! gone when they are.

use super::ptrace::{self, Event};
use nix::unistd::{ForkResult, fork};
use std::io;

/// A child that waits to be looked at, with a copy of our memory and descriptors. It ends when this
/// is dropped.
#[derive(Debug)]
pub(crate) struct Trial(i32);

impl Trial {
    pub(crate) fn start() -> io::Result<Self> {
        // SAFETY: the child of a program with threads does nothing but make system calls.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self(child.as_raw())),
            ForkResult::Child => {
                die_with_us();
                loop {
                    nix::unistd::pause();
                }
            }
        }
    }

    /// A child that was made in another way.
    pub(crate) fn adopt(pid: i32) -> Self {
        Self(pid)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // SAFETY: takes two integers; until it was waited for, the id is that of our child.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // A tracee may have stopped for something else before.
        while ptrace::wait(self.0).is_ok_and(|event| event != Event::Gone) {}
    }
}

/// Where an error has no number, nothing was said and nothing happened.
const NO_EFFECT: i32 = 255;

/// Runs it in a child with a single thread, and says how it went. It may only make system calls:
/// another thread may have held any lock when the child was made.
pub(crate) fn in_a_child(run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: as the caller has promised to, the child only makes system calls.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => outcome(child.as_raw()),
        ForkResult::Child => {
            die_with_us();
            let code = run().map_or_else(|error| error.raw_os_error().unwrap_or(NO_EFFECT), |()| 0);
            // SAFETY: ends the child at once, without running what the parent has to run.
            unsafe { libc::_exit(code) }
        }
    }
}

fn outcome(child: i32) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` is the one int that waitpid(2) writes.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, NO_EFFECT) => Err(io::Error::other("it is accepted and has no effect")),
        (true, errno) => Err(io::Error::from_raw_os_error(errno)),
        (false, _) => {
            let signal = libc::WTERMSIG(status);
            Err(io::Error::other(format!("whoever uses it is killed by signal {signal}")))
        }
    }
}

/// Should we be killed while a child waits, nobody would end it.
fn die_with_us() {
    // SAFETY: PR_SET_PDEATHSIG takes one integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_a_child_says_is_heard() {
        assert!(in_a_child(|| Ok(())).is_ok());
        let error = in_a_child(|| Err(io::Error::from_raw_os_error(libc::ENOSYS))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
        let error = in_a_child(|| Err(io::ErrorKind::InvalidData.into())).unwrap_err();
        assert!(error.to_string().contains("no effect"), "{error}");
    }

    #[test]
    fn a_child_that_is_killed_says_so() {
        let error = in_a_child(|| {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)?;
            Ok(())
        });
        assert!(error.unwrap_err().to_string().contains("signal 9"));
    }

    #[test]
    fn nothing_is_left_of_a_trial() {
        let trial = Trial::start().unwrap();
        let place = format!("/proc/{}", trial.pid());
        assert!(Path::new(&place).exists());
        drop(trial);
        assert!(!Path::new(&place).exists());
    }
}
