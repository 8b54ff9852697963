//! Processes that the tree traces. ptrace(2) ties them to it, and a move would let go of them.

use crate::aspects::read_status;
use crate::error::{Error, Object, OnObject as _};
use crate::refusal::Refusal;
use crate::tree::{self, Process};
use std::collections::{BTreeMap, BTreeSet};

/// Every process of this host that is not of the tree, and is traced by it. Those of the tree that
/// are traced are refused for that themselves.
pub(super) fn examine(tree: &[Process]) -> Result<Vec<Refusal>, Error> {
    let tracers = tracers(tree)?;
    let own: BTreeSet<i32> = tree.iter().map(|process| process.pid).collect();
    let pids = tree::every_pid().on("list the processes of", || Object::Host)?;
    let mut refusals = Vec::new();
    for tracee in pids.into_iter().filter(|pid| !own.contains(pid)) {
        let tracer = match tracer_of(tracee) {
            Err(error) if error.is_gone() => None,
            other => other?,
        };
        let pid = tracer.and_then(|tracer| tracers.get(&tracer));
        refusals.extend(pid.map(|&pid| refusal(pid, tracee)));
    }
    Ok(refusals)
}

/// The process of each thread, because it is a thread that traces.
fn tracers(tree: &[Process]) -> Result<BTreeMap<i32, i32>, Error> {
    let mut tracers = BTreeMap::new();
    for process in tree {
        let tids = tree::threads(process.pid)?;
        tracers.extend(tids.into_iter().map(|tid| (tid, process.pid)));
    }
    Ok(tracers)
}

/// The thread that traces this process, or a thread of it. None when it has ended.
pub(super) fn tracer_of(pid: i32) -> Result<Option<i32>, Error> {
    let tids = tree::threads(pid)?;
    Ok(tids.into_iter().find_map(|tid| tracer(&read_status(tid).ok()?)))
}

fn tracer(status: &str) -> Option<i32> {
    let text = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    text.trim().parse().ok().filter(|&tracer| tracer != 0)
}

fn refusal(pid: i32, tracee: i32) -> Refusal {
    let name = std::fs::read_to_string(format!("/proc/{tracee}/comm")).unwrap_or_default();
    Refusal {
        object: Object::Process { pid },
        reason: format!("traces process {tracee} ({}), which stays behind", name.trim_end()),
        advice: "Let it detach from that process first, or end it.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asleep::Asleep;
    use crate::tracee::{OnOurDeath, Running};

    #[test]
    fn a_tracer_is_seen_and_none_is_not() {
        assert_eq!(tracer("Name:\tx\nTracerPid:\t0\n"), None);
        assert_eq!(tracer("Name:\tx\nTracerPid:\t12\n"), Some(12));
    }

    /// The tracer is a thread of ours, and no leader.
    #[test]
    fn what_is_traced_by_a_thread_of_the_tree_is_named_with_its_tracer() {
        let sleeper = Asleep::start();
        let tracee = sleeper.pid();
        let us = Process::read(std::process::id().cast_signed()).unwrap();
        let said = Running::seize(tracee, tracee, OnOurDeath::Runs)
            .map(|seized| (examine(std::slice::from_ref(&us)).unwrap(), seized).0);
        let said = said.unwrap();
        // Other tests of this process trace as well.
        let ours = said.iter().find(|said| said.reason.contains(&tracee.to_string())).unwrap();
        assert_eq!(ours.object, Object::Process { pid: us.pid });
        assert!(ours.reason.contains("(sleep)"), "{ours}");
        assert!(examine(&[]).unwrap().is_empty());
    }
}
