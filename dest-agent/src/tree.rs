//! The tree as the engine's thread has it: a shell, then whole, then on its own.

use crate::faults::Faults;
use crate::gate::Gate;
use crate::lazy;
use crate::left::{Left, LeftProcess, LeftSpace};
use crate::report;
use engine::clocks::Clocks;
use engine::image::{Layout, TreeImage, decode};
use engine::memory::holder::Holder;
use engine::memory::lazy::LazyMemory;
use engine::restore::{self, Restored};
use engine::stage::Stage;
use protocol::limits::ROUND_WAIT;
use protocol::{Failure, Phase};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How far the tree's clocks may be behind those of its image, to be waited for. They are ahead
/// by the time that a message takes, unless two hosts disagree on how long a second is.
const CLOCKS_WAIT: Duration = Duration::from_secs(1);
/// For init to reap what was killed. One that does not is no reason to fail.
const REAP_WAIT: Duration = Duration::from_secs(1);

/// What a session, the engine's thread and the readers of its streams have in common.
#[derive(Clone, Debug)]
pub struct Parts {
    pub gate: Arc<Gate>,
    pub faults: Arc<Faults>,
    /// There from the moment when the tree is ready and has pages missing.
    pub memory: Arc<OnceLock<Arc<LazyMemory>>>,
    /// Where a [`Left`] stands from then on.
    pub left: PathBuf,
    /// Where the holder listens for our successor.
    pub socket: PathBuf,
}

#[derive(Debug)]
pub struct Tree {
    parts: Parts,
    state: State,
    round: u32,
    holder: Option<Arc<Holder>>,
    runtime: Handle,
}

#[derive(Debug)]
enum State {
    /// It was never here, or it is no more, or it runs.
    Elsewhere,
    Staged(Stage),
    Built(Box<Restored>),
}

/// Why a tree does not run.
#[derive(Debug)]
pub enum NotRun {
    /// It may run when it is tried again.
    Failed(Failure),
    /// It never will.
    Lost(Failure),
}

impl Tree {
    pub fn new(parts: Parts, runtime: Handle) -> Self {
        Self { parts, state: State::Elsewhere, round: 0, holder: None, runtime }
    }

    /// Builds the shell, and starts the holder while nobody waits for it.
    pub fn stage(&mut self, layout: &[u8], offsets: Clocks) -> Result<(), Failure> {
        let failed = |error| report::of_engine(Phase::Stage, &error);
        let layout: Layout = decode("layout", layout).map_err(failed)?;
        self.state = State::Staged(Stage::begin(&layout, offsets).map_err(failed)?);
        self.holder = Some(lazy::start_holder(&self.parts.socket).map_err(failed)?);
        Ok(())
    }

    /// Brings the shell up to date and lets this round's pages in.
    pub fn open(&mut self, round: u32, layout: &[u8]) -> Result<(), Failure> {
        let failed = |error| report::of_engine(Phase::Rounds, &error);
        let State::Staged(stage) = &mut self.state else {
            return Err(report::because(Phase::Rounds, "open a round of", "the tree", NO_SHELL));
        };
        if !layout.is_empty() {
            stage.apply(&decode("layout", layout).map_err(failed)?).map_err(failed)?;
        }
        self.round = round;
        self.parts.gate.open_round(round, stage.filler());
        Ok(())
    }

    /// Makes the tree whole, as soon as the last of its pages have landed.
    pub fn build(&mut self, image: &[u8]) -> Result<BTreeMap<String, u64>, Failure> {
        let failed = |error| report::of_engine(Phase::Final, &error);
        let image: TreeImage = decode("tree", image).map_err(failed)?;
        self.wait_for_pages()?;
        let State::Staged(stage) = std::mem::replace(&mut self.state, State::Elsewhere) else {
            return Err(report::because(Phase::Final, "build", "the tree", NO_SHELL));
        };
        let mut restored = restore::build(stage, &image).map_err(failed)?;
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
        let left = Left { processes, spaces, has_run: false };
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
        let memory = LazyMemory::start(spaces, Arc::clone(&self.parts.faults) as _, Some(holder))?;
        self.serve(memory);
        Ok(())
    }

    fn serve(&self, memory: LazyMemory) {
        let memory = Arc::new(memory);
        self.parts.faults.serve(&memory);
        if self.parts.memory.set(memory).is_err() {
            tracing::error!("a tree was made lazy twice");
        }
    }

    /// See [`Restored::outlive_us`]. Nothing to do for a tree that runs already.
    pub fn outlive_us(&mut self) -> Result<(), Failure> {
        match &mut self.state {
            State::Built(restored) => {
                let failed = |error| report::of_engine(Phase::Handover, &error);
                restored.outlive_us().map_err(failed)
            }
            State::Elsewhere | State::Staged(_) => Ok(()),
        }
    }

    pub fn run(&mut self) -> Result<(), NotRun> {
        let restored = match std::mem::replace(&mut self.state, State::Elsewhere) {
            State::Built(restored) => restored,
            State::Elsewhere | State::Staged(_) => return self.revive(),
        };
        let result = restored.run();
        result.map_err(|error| NotRun::Failed(report::of_engine(Phase::Handover, &error)))?;
        self.release_holder();
        Ok(())
    }

    /// With nothing missing there is nothing to be held.
    fn release_holder(&mut self) {
        if let Some(Err(error)) = self.holder.take().map(|holder| holder.release()) {
            tracing::warn!("the holder had ended already: {}", report::chain(&error));
        }
    }

    /// Ours, or the one of an agent that died before it could discard the tree itself.
    fn release_holders(&mut self) {
        if self.holder.is_none() && self.parts.socket.exists() {
            match lazy::take_over(&self.parts.socket) {
                Ok(taken) => self.holder = taken.map(|(holder, _)| Arc::new(holder)),
                // It ends by itself, a little later.
                Err(error) => tracing::warn!("release the holder: {}", report::chain(&error)),
            }
        }
        self.release_holder();
    }

    /// Takes over a tree that outlived the agent which made it.
    fn revive(&mut self) -> Result<(), NotRun> {
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

    /// Ends every process of the tree, whoever has made it, and removes what was left of it.
    pub fn discard(&mut self) -> Result<(), Failure> {
        self.parts.gate.close();
        self.parts.faults.close();
        let pids = match std::mem::replace(&mut self.state, State::Elsewhere) {
            State::Elsewhere => Vec::new(),
            State::Staged(stage) => stage.pids(),
            State::Built(restored) => restored.pids(),
        };
        let object = self.parts.left.display().to_string();
        let failed =
            |error| report::of_io(Phase::Handover, "end the processes in", &object, &error);
        if let Some(left) = Left::read(&self.parts.left).map_err(failed)? {
            left.end().map_err(failed)?;
        }
        match self.parts.memory.get() {
            Some(memory) => lazy::wait_for_end(memory),
            None => self.release_holders(),
        }
        forget(&self.parts.left);
        wait_until_reaped(&pids);
        Ok(())
    }
}

/// The root's parent is init by now. Until that has reaped it, its id is taken, and would stand
/// against the next migration of the same tree.
fn wait_until_reaped(pids: &[i32]) {
    let limit = Instant::now() + REAP_WAIT;
    let is_there = |pid: &i32| Path::new(&format!("/proc/{pid}")).exists();
    while pids.iter().any(is_there) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(1));
    }
}

const NO_SHELL: &str = "it was not staged, or has been built already";

fn lost(cause: &str) -> NotRun {
    NotRun::Lost(report::because(Phase::Lazy, "go on with", "the tree", cause))
}

/// Removes what a successor would have needed.
pub fn forget(left: &Path) {
    match std::fs::remove_file(left) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("remove {}: {error}", left.display());
        }
        _ => {}
    }
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
