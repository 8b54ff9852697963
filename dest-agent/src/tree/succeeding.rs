//! Taking over a tree from an agent that died after the decision.

use super::{NotRun, Tree};
use crate::lazy;
use crate::left::{Left, LeftProcess, LeftSpace};
use crate::report;
use engine::memory::lazy::LazyMemory;
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
            left.living().for_each(LeftProcess::go_on);
        }
        Ok(())
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
