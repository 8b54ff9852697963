//! From a tree that is complete to one that runs, whoever dies meanwhile.

use super::Restored;
use crate::descriptors::Awaiting;
use crate::error::{Error, Object, OnObject as _};
use crate::network::{self, Lock, namespace};
use crate::tracee::{OnOurDeath, Stopped};
use nix::sys::signal::{Signal::SIGSTOP, kill};

impl Restored {
    /// Makes the stopped tree outlive us without running: a SIGSTOP waits for every process, and
    /// from then on nothing kills them with us. [`Self::run`] takes the SIGSTOP away again.
    pub fn outlive_us(&mut self) -> Result<(), Error> {
        if self.outlives_us {
            return Ok(());
        }
        for &pid in self.stage.stubs.keys() {
            let process = nix::unistd::Pid::from_raw(pid);
            kill(process, SIGSTOP).on("guard", || Object::Process { pid })?;
        }
        self.outlives_us = true;
        let threads = self.stage.stubs.values().flat_map(|stub| &stub.threads);
        threads.into_iter().try_for_each(|thread| {
            // Somebody may have killed it, as he could have after the permit: then nothing is left to
            // guard.
            thread.unless_killed(thread.set_on_our_death(OnOurDeath::Runs))
        })
    }

    /// Lets the tree run. From here on it is not ours to kill.
    ///
    /// Where memory is lazy it must be served already. What could not be let go is kept, and is what
    /// the next call is about; the error names the first of it. Every other process runs.
    pub fn run(&mut self) -> Result<(), Error> {
        // All first: if we die between two of them, none may be killed for it, and none may run
        // without the others.
        self.outlive_us()?;
        self.go_live();
        let mut result = Ok(());
        for (pid, stub) in &mut self.stage.stubs {
            // What job control had stopped meets the SIGSTOP before its first instruction.
            let goes_on = !self.stopped.contains(pid);
            let let_go = |thread: &Stopped| let_go(thread, goes_on && thread.tid() == *pid);
            result = result.and(in_turn(&mut stub.threads, let_go));
        }
        self.stage.stubs.retain(|_, stub| !stub.threads.is_empty());
        result
    }

    /// Its addresses come here, and its connections speak again. It is decided: one that cannot go
    /// on is no reason to keep the tree still.
    fn go_live(&mut self) {
        let complain = |error: Error| tracing::error!("{error}: {}", error.source);
        network::arrive(&self.stage.layout.addresses).into_iter().for_each(complain);
        let joined = self.stage.namespace().map(namespace::join);
        joined.into_iter().flatten().for_each(complain);
        let inside = namespace::enter(self.stage.namespace());
        if let Some(Err(error)) = self.stage.lock.take().map(Lock::end) {
            complain(error);
        }
        let awaiting = std::mem::take(&mut self.awaiting);
        let live = awaiting.iter().map(Awaiting::go_live);
        // All of them hear before the first of them speaks.
        let live = live.chain(awaiting.iter().map(Awaiting::speak));
        live.filter_map(Result::err).for_each(complain);
        if let Err(error) = inside {
            complain(error);
        }
    }
}

/// The leader takes the SIGSTOP away for its process.
fn let_go(thread: &Stopped, takes_stop_away: bool) -> Result<(), Error> {
    let released = match takes_stop_away {
        true => thread.let_go_without(libc::SIGSTOP),
        false => thread.let_go(0),
    };
    // If it was killed meanwhile, that is the end of it, not of the tree.
    thread.unless_killed(released)
}

/// Lets one thread go after the other, and stops at the first that cannot be: a process runs with
/// all of its threads or stands still with those that are left.
fn in_turn<T>(
    threads: &mut Vec<T>,
    mut let_go: impl FnMut(&T) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut count = 0;
    let result = threads.iter().try_for_each(|thread| {
        let_go(thread)?;
        count += 1;
        Ok(())
    });
    threads.drain(..count);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_let_go_is_kept_for_the_next_attempt() {
        let mut threads = vec![1, 2, 3];
        let failing = |&thread: &i32| match thread {
            2 => Err(Error::invalid("release", Object::Host, "a reason")),
            _ => Ok(()),
        };
        in_turn(&mut threads, failing).unwrap_err();
        assert_eq!(threads, [2, 3]);
        in_turn(&mut threads, |_| Ok(())).unwrap();
        assert!(threads.is_empty());
    }
}
