//! From a shell and an image to a tree that only waits for the permit.

use super::{NO_SHELL, State, Tree};
use crate::lazy;
use crate::left::{Left, LeftProcess, LeftSpace};
use crate::report;
use engine::clocks::Clocks;
use engine::image::{TreeImage, decode};
use engine::memory::lazy::LazyMemory;
use engine::restore::{self, Restored};
use protocol::limits::ROUND_WAIT;
use protocol::{Failure, Phase};
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

/// How far the tree's clocks may be behind those of its image, to be waited for. They are ahead
/// by the time that a message takes, unless two hosts disagree on how long a second is.
const CLOCKS_WAIT: Duration = Duration::from_secs(1);

impl Tree {
    /// Makes the tree whole, as soon as the last of its pages have landed.
    pub fn build(&mut self, image: &[u8]) -> Result<BTreeMap<String, u64>, Failure> {
        let failed = |error| report::of_engine(Phase::Final, &error);
        let image: TreeImage = decode("tree", image).map_err(failed)?;
        self.wait_for_pages()?;
        let State::Staged(stage) = std::mem::replace(&mut self.state, State::Elsewhere) else {
            return Err(report::because(Phase::Final, "build", "the tree", NO_SHELL));
        };
        self.parts.admit_image(&image, &stage.pids())?;
        let mut restored = restore::build(*stage, &image).map_err(failed)?;
        self.parts.admit_opened(&living(&restored, &image))?;
        self.leave_behind(&restored, &image)?;
        self.arm(&mut restored).map_err(failed)?;
        wait_for_clocks(&image)?;
        let timings = timings_ns(&restored);
        self.state = State::Built(Box::new(restored));
        Ok(timings)
    }

    /// As long as pages go on coming.
    fn wait_for_pages(&self) -> Result<(), Failure> {
        let gate = &self.parts.gate;
        loop {
            let before = gate.stored_pages();
            let landed = async { tokio::time::timeout(ROUND_WAIT, gate.landed(self.round)).await };
            let cause = match self.runtime.block_on(landed) {
                Ok(true) => return Ok(()),
                Ok(false) => "the migration was given up meanwhile",
                Err(_) if gate.stored_pages() > before => continue,
                Err(_) => "none came for too long",
            };
            return Err(report::because(
                Phase::Final,
                "wait for the last pages of",
                "the tree",
                cause,
            ));
        }
    }

    fn leave_behind(&self, restored: &Restored, image: &TreeImage) -> Result<(), Failure> {
        let failed = |error| report::of_engine(Phase::Final, &error);
        let is_stopped = |pid| image.processes.iter().any(|p| p.pid == pid && p.is_stopped);
        let processes = restored.pids().into_iter();
        let processes = processes.map(|pid| LeftProcess::of(pid, is_stopped(pid)));
        let spaces = restored.lazy.iter().map(|(space, _)| LeftSpace::of(space)).collect();
        let processes = processes.collect::<Result<_, _>>().map_err(failed)?;
        let addresses = restored.addresses().to_vec();
        let left = Left { processes, spaces, has_run: false, addresses };
        let object = self.parts.left.display().to_string();
        left.write(&self.parts.left)
            .map_err(|error| report::of_io(Phase::Final, "write", &object, &error))
    }

    /// From here on missing pages are served, though nobody touches one before the tree runs. Now
    /// and not then: an agent that died in between would leave a tree that reads zeros.
    fn arm(&mut self, restored: &mut Restored) -> Result<(), engine::Error> {
        let spaces = std::mem::take(&mut restored.lazy);
        if spaces.is_empty() {
            return Ok(());
        }
        let holder = match self.holder.take() {
            Some(holder) => holder,
            None => lazy::start_holder(&self.parts.socket)?,
        };
        restored.pids().into_iter().try_for_each(|pid| holder.watch_process(pid))?;
        if let Some(scope) = &self.scope {
            holder.watch_cgroup(scope.directory().as_fd())?;
        }
        let memory = LazyMemory::start(spaces, Arc::clone(&self.parts.faults) as _, Some(holder))?;
        self.serve(memory);
        Ok(())
    }
}

/// A zombie has nothing open, and its procfs says so in other ways.
fn living(restored: &Restored, image: &TreeImage) -> Vec<i32> {
    let is_zombie = |pid| image.processes.iter().any(|one| one.pid == pid && one.is_zombie);
    restored.pids().into_iter().filter(|pid| !is_zombie(*pid)).collect()
}

/// No clock of the tree may show less than it has seen.
fn wait_for_clocks(image: &TreeImage) -> Result<(), Failure> {
    let failed = |error| report::of_engine(Phase::Final, &error);
    let (Some(seen), Some(root)) = (image.clocks, image.processes.first()) else { return Ok(()) };
    let behind = seen.minus(Clocks::of_process(root.pid).map_err(failed)?);
    let behind = behind.monotonic_ns.max(behind.boottime_ns).max(0);
    let behind = Duration::from_nanos(behind.unsigned_abs());
    if behind > CLOCKS_WAIT {
        let cause = format!("they are {behind:?} behind");
        return Err(report::because(Phase::Final, "set the clocks of", "the tree", &cause));
    }
    std::thread::sleep(behind);
    Ok(())
}

fn timings_ns(restored: &Restored) -> BTreeMap<String, u64> {
    let ns = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    restored.timings.iter().map(|(step, time)| ((*step).to_owned(), ns(time))).collect()
}
