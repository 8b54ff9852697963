//! Taking over a tree from an agent that died after the decision.
//!
//! What holds such a tree until then is the SIGSTOP that was queued before the decision, and nothing
//! else: the trace ended with the agent that made it. So a SIGCONT from anybody who may send one
//! lets it run. After the decision that is what will happen anyway, only sooner. Before it (the agent
//! died between the guard and the journal line, some 100 us) it would be a second copy: that is why a
//! restarted agent begins with ending every undecided tree, and why the unit restarts it at once.
//!
//! Two things a successor cannot see. A program with a handler for SIGCONT finds that it was called
//! once. And a process whose leader was just taking the SIGSTOP away when the agent died (a few
//! microseconds for each process) has all of its signals blocked in that thread.

use super::{NotRun, Tree};
use crate::lazy;
use crate::left::{Left, LeftProcess, LeftSpace};
use crate::report;
use engine::memory::lazy::LazyMemory;
use engine::network::{Namespace, namespace};
use engine::{descriptors, network};
use protocol::Phase;
use std::sync::Arc;

impl Tree {
    /// Takes over a tree that outlived the agent which made it.
    pub(super) fn revive(&mut self) -> Result<(), NotRun> {
        let object = self.parts.left.display().to_string();
        let left = Left::read(&self.parts.left).map_err(|error| {
            NotRun::Failed(report::of_io(Phase::Handover, "read", &object, &error))
        })?;
        let left = left.ok_or_else(|| lost("nothing says what its processes were"))?;
        let alive = left.living().count() > 0;
        if !alive && !left.spaces.is_empty() {
            return Err(lost("it was ended, or has ended, while pages were missing"));
        }
        if alive && !left.spaces.is_empty() && self.parts.memory.get().is_none() {
            self.take_over(&left)?;
        }
        if !left.has_run {
            self.go_live(&left);
            left.living().for_each(LeftProcess::go_on);
        }
        if alive {
            // Whether it was told before the other agent died nobody knows.
            self.know_by(&left);
            let first = left.living().next().map(|process| process.pid);
            let namespace = first.map(Namespace::of_process).transpose();
            self.tell_that_it_runs(left.addresses, namespace.unwrap_or_default().flatten());
        }
        Ok(())
    }

    /// What the hooks are told, as the agent which made it told them.
    pub(super) fn know_by(&mut self, left: &Left) {
        let root = left.processes.first().map_or(0, |root| root.pid);
        self.hooks.get_or_insert_with(|| self.parts.hooks_of(root, &left.addresses));
    }

    /// As [`engine::restore::Restored::run`] does, by what its processes have open.
    fn go_live(&self, left: &Left) {
        let complain = |error: engine::Error| tracing::error!("{}", report::chain(&error));
        network::arrive(&left.addresses).into_iter().for_each(complain);
        let pids: Vec<i32> = left.living().map(|process| process.pid).collect();
        let Some(&first) = pids.first() else { return };
        // All of them are in one network namespace; what is said to us is not said there.
        namespace::join_of(first).into_iter().for_each(complain);
        let lived = Namespace::of_process(first).and_then(|namespace| {
            let _inside = namespace.as_ref().map(Namespace::enter).transpose()?;
            descriptors::go_live(&pids)
        });
        if let Err(error) = lived {
            complain(error);
        }
    }

    fn take_over(&self, left: &Left) -> Result<(), NotRun> {
        let failed = |error| NotRun::Failed(report::of_engine(Phase::Lazy, &error));
        // A holder ends when nothing is missing any more, and kills the tree when it gives up. The
        // tree is there, so if nobody holds, nothing is missing.
        let Some((holder, kept)) = lazy::take_over(&self.parts.socket).map_err(failed)? else {
            return Ok(());
        };
        let spaces = left.spaces.iter().map(LeftSpace::lazy).collect();
        let faults = Arc::clone(&self.parts.faults) as _;
        let memory = LazyMemory::resume(spaces, faults, Arc::new(holder), kept).map_err(failed)?;
        self.serve(memory);
        Ok(())
    }
}

fn lost(cause: &str) -> NotRun {
    NotRun::Lost(report::because(Phase::Lazy, "go on with", "the tree", cause))
}
