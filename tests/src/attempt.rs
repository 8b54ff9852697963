//! A move that must not happen: whatever stands against it, the process on the source is as it was,
//! to the last descriptor and mapping, neither stopped nor traced.

use crate::footprint::Footprint;
use crate::hosts::{Started, TwoHosts};
use crate::moved::{Moved, exit};
use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::fs;

/// From `hosta`, of a process that looked like `before`.
#[derive(Debug)]
pub struct Attempt<'hosts> {
    pub hosts: &'hosts TwoHosts,
    pub pid: i32,
    before: Footprint,
    command: Started,
}

impl<'hosts> Attempt<'hosts> {
    pub fn begin(hosts: &'hosts TwoHosts, pid: i32, to: &str, options: &[&str]) -> Result<Self> {
        let before = Footprint::settled(&hosts.a, pid)?;
        let command = hosts.start_migrate(pid, &hosts.a, to, options)?;
        Ok(Self { hosts, pid, before, command })
    }

    /// Waits until the command has said that it is in this phase.
    pub fn is_in(&self, phase: &str) -> Result<()> {
        let event = format!(r#"{{"event":"phase","name":"{phase}"}}"#);
        wait::until(
            wait::PATIENCE,
            || format!("the phase {phase:?}"),
            || {
                let said = fs::read_to_string(&self.command.stdout)?;
                if said.lines().any(|line| line == event) {
                    return Ok(Some(()));
                }
                if !self.hosts.a.exists(self.command.pid) {
                    bail!("it ended before: {said} {}", fs::read_to_string(&self.command.stderr)?);
                }
                Ok(None)
            },
        )
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.hosts.a.signal(self.command.pid, signal)
    }

    /// As `kill -9` does it: the command has no time for a word.
    pub fn is_killed(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.hosts.a.end_of(self.command.pid, wait::PATIENCE).map(drop)
    }

    /// The end of the command, whatever it is.
    pub fn finish(&self) -> Result<Moved> {
        self.hosts.finish_migrate(&self.hosts.a, &self.command)
    }

    /// The command ends with this code, and it is as if nobody had asked.
    pub fn ends_with(&self, code: i32) -> Result<Moved> {
        let moved = self.finish()?;
        ensure!(moved.exit == code, "not {code}: {}", moved.story());
        if code != exit::REFUSED {
            moved.expect_names(&["runs_on source"])?;
        }
        self.is_as_it_was().with_context(|| moved.story())?;
        Ok(moved)
    }

    /// A command that was killed says nothing, and its process goes on all the same.
    pub fn is_as_it_was(&self) -> Result<()> {
        self.before.expect_again(&self.hosts.a, self.pid)
    }

    /// What was staged on `hostb` does not stay there.
    pub fn leaves_nothing_on_b(&self) -> Result<()> {
        wait::until(
            wait::PATIENCE,
            || format!("the stub of process {} on hostb to go", self.pid),
            || Ok((!self.hosts.b.exists(self.pid)).then_some(())),
        )
    }
}

/// Refused, for reasons that stand in the answer as refusals and name what they are about.
pub fn is_refused(hosts: &TwoHosts, pid: i32, to: &str, names: &[&str]) -> Result<Moved> {
    let moved = Attempt::begin(hosts, pid, to, &[])?.ends_with(exit::REFUSED)?;
    ensure!(!moved.refusals().is_empty(), "{}", moved.story());
    moved.expect_names(names)?;
    Ok(moved)
}

/// Fails before the handover, in words that name what they are about.
pub fn fails(hosts: &TwoHosts, pid: i32, to: &str, names: &[&str]) -> Result<Moved> {
    let moved = Attempt::begin(hosts, pid, to, &[])?.ends_with(exit::FAILED)?;
    moved.expect_names(names)?;
    Ok(moved)
}
