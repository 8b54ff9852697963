//! The matrix of faults: each step of either side, before and after it is done, times what can go
//! wrong at that moment. Whatever happens, exactly one copy runs in the end, it proves its state,
//! and nothing is left behind.

mod aftermath;
mod cell;
mod connected;
mod ground;

use anyhow::{Error, Result, anyhow};
pub use cell::{Cell, Fault, Moment, Subject, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A step of one side, as the failure points name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: &'static str,
    pub reach: Reach,
}

/// What a fault at this step may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The tree was not given away: it goes on at the source.
    Copying,
    /// It was or it was not: the agents have to find out.
    Handover,
    /// It was given away: it goes on at the destination.
    Lazy,
}

impl Step {
    fn is_from_the_freeze_on(&self) -> bool {
        let place = |name| STEPS.iter().position(|step| step.name == name);
        place(self.name) >= place("source.freeze")
    }

    /// How much the tree writes all the time: pages are withdrawn only where there are many.
    fn writer_mib(&self) -> &'static str {
        if self.name == "source.withdraw" { "64" } else { "4" }
    }
}

const fn step(name: &'static str, reach: Reach) -> Step {
    Step { name, reach }
}

/// In the order in which a move passes them.
pub const STEPS: &[Step] = &[
    step("source.record-opened", Reach::Copying),
    step("source.describe", Reach::Copying),
    step("destination.record-accepted", Reach::Copying),
    step("destination.stage", Reach::Copying),
    step("destination.stage-stubs", Reach::Copying),
    step("source.open-round", Reach::Copying),
    step("destination.open", Reach::Copying),
    step("source.copy-round", Reach::Copying),
    step("destination.tidy", Reach::Copying),
    step("source.measure", Reach::Copying),
    step("source.withdraw", Reach::Copying),
    step("source.freeze", Reach::Copying),
    step("source.copy-rest", Reach::Copying),
    step("source.cut-cables", Reach::Copying),
    step("source.capture", Reach::Copying),
    step("destination.build", Reach::Copying),
    step("destination.restore-descriptors", Reach::Copying),
    step("destination.restore-memory", Reach::Copying),
    step("destination.restore-aspects", Reach::Copying),
    step("destination.restore-threads", Reach::Copying),
    step("source.silence", Reach::Handover),
    step("source.give-addresses", Reach::Handover),
    step("source.record-surrendered", Reach::Handover),
    step("destination.outlive", Reach::Handover),
    step("destination.record-running", Reach::Handover),
    step("destination.run", Reach::Handover),
    step("source.record-runs-there", Reach::Lazy),
    step("source.serve", Reach::Lazy),
    step("destination.record-complete", Reach::Lazy),
    step("source.record-relieved", Reach::Lazy),
    step("source.reap", Reach::Lazy),
    step("source.record-end", Reach::Lazy),
];

/// All cells, or a representative part: of every step both moments, and every fault in turn.
pub fn cells(quick: bool) -> Vec<Cell> {
    let all = STEPS.iter().flat_map(|&step| cells_of(step));
    if !quick {
        return all.collect();
    }
    let picked = all.enumerate().filter(|(index, cell)| match cell.subject {
        Subject::Writer => {
            index % 4 == 0 || (cell.step.reach == Reach::Handover && cell.fault.kills())
        }
        Subject::Server => index % 7 == 0,
        Subject::Namespace => index % 13 == 0,
    });
    picked.map(|(_, cell)| cell).collect()
}

/// The cells of one step.
pub fn cells_of(step: Step) -> impl Iterator<Item = Cell> {
    let moments = [Moment::Before, Moment::After];
    let faults = Fault::ALL.iter();
    let all = moments.into_iter().flat_map(move |moment| faults.clone().map(move |f| (moment, *f)));
    let subjects = [Subject::Writer, Subject::Server, Subject::Namespace];
    let all =
        subjects.into_iter().flat_map(move |subject| all.clone().map(move |one| (subject, one)));
    all.map(move |(subject, (moment, fault))| Cell { step, moment, fault, subject })
        .filter(Cell::can_happen)
}

/// A cell mostly waits for time-outs.
const AT_ONCE: usize = 4;

/// Runs them, a few at once, and tells of each when it has ended. The violations are returned.
pub fn run_all(cells: &[Cell], tell: impl Fn(&Cell, Option<&Error>) + Sync) -> Result<Vec<Error>> {
    let (next, violations) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let work = || {
            while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                let violation = run(*cell).err();
                tell(cell, violation.as_ref());
                violations.lock().expect("nobody panics with it").extend(violation);
            }
        };
        let workers = [(); AT_ONCE].map(|()| scope.spawn(work));
        let ended = workers.map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked")));
        ended.into_iter().collect::<Result<Vec<()>>>()
    })?;
    Ok(violations.into_inner().expect("nobody panicked with it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_part_has_every_step_and_every_fault() {
        let quick = cells(true);
        assert!(quick.len() >= 60, "{} cells", quick.len());
        for step in STEPS {
            assert!(quick.iter().any(|cell| cell.step == *step), "{}", step.name);
        }
        for fault in Fault::ALL {
            assert!(quick.iter().any(|cell| cell.fault == *fault), "{fault:?}");
        }
    }
}
