//! The rules held against what comes, and not only against what was announced.

use super::Parts;
use crate::{footprint, report};
use engine::image::{Layout, TreeImage};
use protocol::{Failure, Phase, Refusal};

impl Parts {
    /// Before a stub of it is made, or a file mapped.
    pub(super) fn admit_layout(&self, layout: &Layout) -> Result<(), Failure> {
        let refusals = self.rules.get().map(|rules| rules.against_layout(layout));
        refusals
            .unwrap_or_default()
            .into_iter()
            .next()
            .map_or(Ok(()), |found| Err(refused(Phase::Stage, &found)))
    }

    /// Between rounds, and when all is here but `missing` pages.
    pub(super) fn admit_memory(&self, pids: &[i32], missing: u64) -> Result<(), Failure> {
        let Some(rules) = self.rules.get().filter(|rules| rules.memory_bytes_max != u64::MAX)
        else {
            return Ok(());
        };
        match rules.against_memory(footprint::bytes(pids, missing)) {
            Some(found) => Err(refused(Phase::Rounds, &found)),
            None => Ok(()),
        }
    }

    /// Before anything of it is restored.
    pub(super) fn admit_image(&self, image: &TreeImage, pids: &[i32]) -> Result<(), Failure> {
        let Some(rules) = self.rules.get() else { return Ok(()) };
        let found = rules.against_image(image);
        let found = found.map_err(|error| report::of_engine(Phase::Final, &error))?;
        if let Some(found) = found {
            return Err(refused(Phase::Final, &found));
        }
        self.admit_memory(pids, footprint::missing_pages(image))
    }

    /// When all is open: by what is there, and not by what it was called.
    pub(super) fn admit_opened(&self, pids: &[i32]) -> Result<(), Failure> {
        let Some(rules) = self.rules.get() else { return Ok(()) };
        let failed =
            |error| report::of_io(Phase::Final, "look at", "what the tree has open", &error);
        let found = rules.against_processes(pids).map_err(failed)?;
        found.first().map_or(Ok(()), |found| Err(refused(Phase::Final, found)))
    }
}

fn refused(phase: Phase, found: &Refusal) -> Failure {
    report::because(phase, "admit", &found.object, &format!("it {}", found.reason))
}
