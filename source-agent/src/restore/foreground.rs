//! A tree that was restored in the foreground: it gets our signals, and its end is our end.

use crate::exit_code;
use crate::signals::Signals;
use anyhow::{Context as _, Result};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::kill;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io;
use std::process::ExitCode;
use tokio::task::spawn_blocking;

/// The restored tree's parent ends at once, and then it is ours: prctl(2), PR_SET_CHILD_SUBREAPER.
pub(super) fn adopt_orphans() -> io::Result<()> {
    set_child_subreaper(true).map_err(io::Error::from)
}

/// Ends as the tree's first process has ended; as a shell has it, with 128 and the signal that
/// killed it.
pub(super) async fn pass_on_until_it_ends(mut signals: Signals, root: i32) -> Result<ExitCode> {
    let mut waiting = spawn_blocking(move || wait_for(root));
    loop {
        tokio::select! {
            ended = &mut waiting => return ended?.context("wait for the end of the tree"),
            Some(signal) = signals.next() => {
                // One that has ended meanwhile is seen by whoever waits.
                let _ = kill(Pid::from_raw(root), signal);
            }
        }
    }
}

/// Reaps whatever of the tree loses its parent meanwhile.
fn wait_for(root: i32) -> io::Result<ExitCode> {
    loop {
        return Ok(match waitpid(None, None)? {
            WaitStatus::Exited(pid, code) if pid.as_raw() == root => exit_code::exited(code),
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw() == root => {
                exit_code::killed_by(signal as i32)
            }
            _ => continue,
        });
    }
}
