//! Whether an image and the shell that was made for it are of one tree.

use super::living;
use crate::error::{Error, Object};
use crate::image::{ProcessImage, TreeImage};
use crate::stage::Stage;
use crate::tracee::Stopped;
use std::collections::BTreeSet;

/// The image and the shell describe the same processes and threads.
pub(super) fn check(stage: &Stage, image: &TreeImage) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for process in &image.processes {
        check_process(stage, process)?;
        if !seen.insert(process.pid) {
            return Err(Error::invalid("read", part_of(process.pid), "it stands in it twice"));
        }
    }
    check_owners(image)?;
    match stage.stubs.keys().find(|pid| !seen.contains(pid)) {
        Some(&pid) => Err(Error::invalid("find", part_of(pid), "it was staged, and is missing")),
        None => Ok(()),
    }
}

fn check_process(stage: &Stage, process: &ProcessImage) -> Result<(), Error> {
    let fault = |action, why: &str| Err(Error::invalid(action, part_of(process.pid), why));
    let Some(stub) = stage.stubs.get(&process.pid) else {
        return fault("place", "it was not staged");
    };
    let staged: BTreeSet<i32> = stub.threads.iter().map(Stopped::tid).collect();
    if !process.is_zombie && process.threads.is_empty() {
        return fault("read", "it has no threads");
    }
    if let Some(thread) = process.threads.iter().find(|thread| !staged.contains(&thread.tid)) {
        return fault("place", &format!("its thread {} was not staged", thread.tid));
    }
    // A thread without registers would run from wherever the stub stood.
    if !process.is_zombie && process.threads.len() != stub.threads.len() {
        return fault("read", "it lacks a thread, or has one twice");
    }
    let was_zombie = stage.layout.process(process.pid).is_some_and(|one| one.is_zombie);
    if was_zombie != process.is_zombie {
        return fault("place", "it was staged dead and is alive, or the other way");
    }
    Ok(())
}

/// The dead have nothing open.
fn check_owners(image: &TreeImage) -> Result<(), Error> {
    let living: BTreeSet<i32> = living(image).map(|process| process.pid).collect();
    let descriptors = image.descriptors.iter().flat_map(|table| &table.descriptors);
    match descriptors.map(|one| one.pid).find(|pid| !living.contains(pid)) {
        Some(pid) => {
            let part = Object::Image { part: format!("descriptors of process {pid}") };
            Err(Error::invalid("place the", part, "the tree has no such living process"))
        }
        None => Ok(()),
    }
}

fn part_of(pid: i32) -> Object {
    Object::Image { part: format!("process {pid}") }
}
