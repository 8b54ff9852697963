//! Letting go of a space that misses nothing, so that no trace of us is left in it.

use super::space::Space;
use crate::memory::page_set::Run;

/// A mapping that grew since (the stack, mremap) is registered where we know nothing of, so the
/// kernel's list of mappings is what counts; and it is read twice, because a mapping may grow
/// while the first list is worked through. What is left over would wait for ever.
pub(super) fn unregister(space: &Space) {
    for run in space
        .layout
        .pieces()
        .map(|piece| Run { address: piece.local, pages: piece.origin_run().pages })
    {
        unregister_run(space, run);
    }
    for _ in 0..2 {
        mapped(space).into_iter().for_each(|run| unregister_run(space, run));
    }
}

/// Failing is an answer: EINVAL for a range that is not mapped any more or whose mapping never
/// was registered (a file's), ENOMEM when the process has ended. The range misses nothing either way.
fn unregister_run(space: &Space, run: Run) {
    if let Err(cause) = space.uffd.unregister(run.address, run.bytes()) {
        tracing::debug!(space = space.origin, address = run.address, %cause, "unregister");
    }
}

/// The private anonymous mappings of the process, if it is known and still there.
fn mapped(space: &Space) -> Vec<Run> {
    let maps = space.pid.and_then(|pid| procfs::process::Process::new(pid).ok()?.maps().ok());
    let mut runs = Vec::new();
    for map in maps.into_iter().flatten().filter(|map| map.inode == 0) {
        runs.push(Run::covering(map.address.0, map.address.1));
    }
    runs
}
