//! The tree as the engine's thread has it: a shell, then whole, then on its own.

mod admitting;
mod building;
mod succeeding;

use crate::faults::Faults;
use crate::gate::Gate;
use crate::holding::Holding;
use crate::lazy;
use crate::left::Left;
use crate::policy::rules::Rules;
use crate::report;
use crate::scope::{Scope, Scopes};
use engine::clocks::Clocks;
use engine::hooks::{Hooks, Point};
use engine::image::{Layout, decode};
use engine::memory::holder::Holder;
use engine::memory::lazy::LazyMemory;
use engine::network::{self, Namespace};
use engine::restore::{self, Restored};
use engine::stage::Stage;
use protocol::{Failure, MigrationId, Phase};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// For init to reap what was killed. One that does not is no reason to fail.
const REAP_WAIT: Duration = Duration::from_secs(1);

/// What a session, the engine's thread and the readers of its streams have in common.
#[derive(Clone, Debug)]
pub struct Parts {
    pub id: MigrationId,
    pub scopes: Arc<Scopes>,
    /// What its source may bring: there from the judgement on.
    pub rules: Arc<OnceLock<Rules>>,
    pub gate: Arc<Gate>,
    pub faults: Arc<Faults>,
    /// There from the moment when the tree is ready and has pages missing.
    pub memory: Arc<OnceLock<Arc<LazyMemory>>>,
    /// The ids that its stubs have.
    pub holding: Arc<Holding>,
    /// Where a [`Left`] stands from then on.
    pub left: PathBuf,
    /// Where the holder listens for our successor.
    pub socket: PathBuf,
    pub hooks: Hooks,
}

/// Pauses before an address that came is announced once more.
const ANNOUNCE_AFTER: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1500),
    Duration::from_secs(4),
];

#[derive(Debug)]
pub struct Tree {
    parts: Parts,
    state: State,
    round: u32,
    holder: Option<Arc<Holder>>,
    scope: Option<Scope>,
    runtime: Handle,
    /// With what they are told of the tree.
    hooks: Option<Hooks>,
}

#[derive(Debug)]
enum State {
    /// It was never here, or it is no more, or it runs.
    Elsewhere,
    Staged(Box<Stage>),
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

impl Parts {
    /// With what they are told of the tree.
    fn hooks_of(&self, root: i32, addresses: &[String]) -> Hooks {
        let hooks = self.hooks.clone().and("MIGRATE_PID", root.to_string());
        hooks.and("MIGRATE_ADDRESSES", addresses.join(" "))
    }
}

impl Tree {
    pub fn new(parts: Parts, runtime: Handle) -> Self {
        Self {
            parts,
            state: State::Elsewhere,
            round: 0,
            holder: None,
            scope: None,
            runtime,
            hooks: None,
        }
    }

    /// Builds the shell, and starts the holder while nobody waits for it.
    pub fn stage(&mut self, layout: &[u8], offsets: Clocks) -> Result<(), Failure> {
        let failed = |error| report::of_engine(Phase::Stage, &error);
        let layout: Layout = decode("layout", layout).map_err(failed)?;
        self.parts.admit_layout(&layout)?;
        self.expect(&layout)?;
        self.parts.holding.hold(every_id(&layout));
        self.scope = self.make_scope()?;
        let cgroup = self.scope.as_ref().map(|scope| scope.directory().as_fd());
        self.state =
            State::Staged(Box::new(Stage::begin(&layout, offsets, cgroup).map_err(failed)?));
        self.holder = Some(lazy::start_holder(&self.parts.socket).map_err(failed)?);
        Ok(())
    }

    fn expect(&mut self, layout: &Layout) -> Result<(), Failure> {
        let pid = layout.processes.first().map_or(0, |root| root.pid);
        let hooks = self.parts.hooks_of(pid, &layout.addresses);
        let expected = hooks.run(Point::Expect);
        self.hooks = Some(hooks);
        expected.map_err(|error| report::of_engine(Phase::Stage, &error))
    }

    /// What the hook says changes nothing, and nobody waits for it.
    fn tell(&self, point: Point) {
        let hooks = self.hooks.clone().unwrap_or_else(|| self.parts.hooks.clone());
        self.runtime.spawn_blocking(move || {
            if let Err(error) = hooks.run(point) {
                tracing::warn!("{}", report::chain(&error));
            }
        });
    }

    fn tell_that_it_runs(&self, addresses: Vec<String>, namespace: Option<Namespace>) {
        self.announce_again(addresses, namespace);
        self.tell(Point::Running);
    }

    /// Frames are lost, and a switch may have been busy.
    fn announce_again(&self, addresses: Vec<String>, namespace: Option<Namespace>) {
        if addresses.is_empty() && namespace.is_none() {
            return;
        }
        self.runtime.spawn_blocking(move || {
            for pause in ANNOUNCE_AFTER {
                std::thread::sleep(pause);
                let within = namespace.as_ref().map(Namespace::announce).unwrap_or_default();
                for error in network::announce_again(&addresses).into_iter().chain(within) {
                    tracing::warn!("{}", report::chain(&error));
                }
            }
        });
    }

    fn make_scope(&self) -> Result<Option<Scope>, Failure> {
        let failed =
            |error| report::of_io(Phase::Stage, "make", "a control group on this host", &error);
        self.parts.scopes.make(self.parts.id).map_err(failed)
    }

    /// Brings the shell up to date and lets this round's pages in.
    pub fn open(&mut self, round: u32, layout: &[u8]) -> Result<(), Failure> {
        let failed = |error| report::of_engine(Phase::Rounds, &error);
        let State::Staged(stage) = &mut self.state else {
            return Err(report::because(Phase::Rounds, "open a round of", "the tree", NO_SHELL));
        };
        if !layout.is_empty() {
            let layout: Layout = decode("layout", layout).map_err(failed)?;
            self.parts.admit_layout(&layout)?;
            self.parts.holding.hold(every_id(&layout));
            stage.apply(&layout).map_err(failed)?;
        }
        self.parts.admit_memory(&stage.pids(), 0)?;
        self.round = round;
        self.parts.gate.open_round(round, stage.filler());
        Ok(())
    }

    /// Gives back the memory of what the source has dropped in the rounds until now: while the
    /// program runs there nobody waits for it.
    pub fn tidy(&mut self) -> Result<(), Failure> {
        let State::Staged(stage) = &self.state else { return Ok(()) };
        restore::drop_what_the_source_dropped(stage)
            .map_err(|error| report::of_engine(Phase::Rounds, &error))
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
        let restored = match &mut self.state {
            State::Built(restored) => restored,
            State::Elsewhere | State::Staged(_) => return self.revive(),
        };
        // What could not be let go stays with us, and is tried again.
        restored.run().map_err(|error| NotRun::Failed(half_running(&error)))?;
        let addresses = restored.addresses().to_vec();
        let namespace = restored.namespace().map(Namespace::again).transpose();
        self.state = State::Elsewhere;
        // Announced once it is already.
        self.tell_that_it_runs(addresses, namespace.unwrap_or_default());
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
            State::Built(restored) => {
                let pids = restored.pids();
                restored.discard();
                pids
            }
        };
        let object = self.parts.left.display().to_string();
        let failed =
            |error| report::of_io(Phase::Handover, "end the processes in", &object, &error);
        if let Some(left) = Left::read(&self.parts.left).map_err(failed)? {
            self.know_by(&left);
            self.parts.scopes.kill(self.parts.id);
            left.end().map_err(failed)?;
        }
        match self.parts.memory.get() {
            Some(memory) => lazy::wait_for_end(memory),
            None => self.release_holders(),
        }
        forget(&self.parts.left);
        wait_until_reaped(&pids);
        self.scope = None;
        self.parts.holding.release();
        self.tell(Point::Discarded);
        Ok(())
    }
}

/// What stands still then stands where it would go on: nothing of it is lost or wrong.
fn half_running(error: &engine::Error) -> Failure {
    report::of_engine(Phase::Handover, error)
        .because("its process stands still, and the rest of the tree runs")
        .because("it is tried again every 30 s; kill that process to let the tree go on without it")
}

/// Those of sessions and groups that are led from outside as well: they are founded anew.
pub fn every_id(layout: &Layout) -> impl Iterator<Item = i32> + '_ {
    let led = layout.processes.iter().flat_map(|process| [process.sid, process.pgid]);
    layout.ids().chain(led).filter(|&id| id != 0)
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
