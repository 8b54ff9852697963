//! The tree as the engine's thread has it: a shell, then whole, then on its own.

mod building;
mod succeeding;

use crate::faults::Faults;
use crate::gate::Gate;
use crate::lazy;
use crate::left::Left;
use crate::report;
use engine::clocks::Clocks;
use engine::image::{Layout, decode};
use engine::memory::holder::Holder;
use engine::memory::lazy::LazyMemory;
use engine::restore::Restored;
use engine::stage::Stage;
use protocol::{Failure, Phase};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

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

/// Removes what a successor would have needed.
pub fn forget(left: &Path) {
    match std::fs::remove_file(left) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("remove {}: {error}", left.display());
        }
        _ => {}
    }
}
