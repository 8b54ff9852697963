//! Preparing the memory that arrives after the tree runs.

use crate::args;
use crate::batch::Batch;
use crate::error::{Error, Object, OnObject as _};
use crate::image::{MissingPages, TreeImage};
use crate::memory::lazy::LazySpace;
use crate::memory::mapping_image::{BackingImage, MappingImage};
use crate::memory::{PAGE_BYTES, PageSet, Run};
use crate::stage::{Stage, Stub};
use crate::sys::process::{pidfd_getfd, pidfd_open};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::PoisonError;

/// Since Linux 5.18; plain MADV_DONTNEED refuses locked memory.
const MADV_DONTNEED_LOCKED: i32 = 24;

/// Gives back what the source has dropped since it was filled in.
pub fn drop_what_the_source_dropped(stage: &Stage) -> Result<(), Error> {
    let filler = stage.filler();
    let filler = filler.read().unwrap_or_else(PoisonError::into_inner);
    for stub in stage.stubs.values().filter(|stub| filler.has(stub.space)) {
        let runs = filler.to_drop(stub.space)?;
        drop_pages(stub, runs.iter().copied())?;
        for run in runs {
            filler.forget(stub.space, run.address, run.pages)?;
        }
    }
    Ok(())
}

/// Drops what is stale, and makes a userfaultfd in every process that lacks pages.
pub(super) fn register(
    stage: &Stage,
    image: &TreeImage,
) -> Result<Vec<(LazySpace, OwnedFd)>, Error> {
    let mut lazy = Vec::new();
    for missing in image.missing.iter().filter(|missing| !missing.runs.is_empty()) {
        let stub = stage.stubs.values().find(|stub| stub.space == missing.space);
        let stub = stub.ok_or_else(|| {
            let part = format!("list of missing pages of space {}", missing.space);
            Error::invalid("place the", Object::Image { part }, "no process has that space")
        })?;
        lazy.push(register_process(stub, missing)?);
    }
    Ok(lazy)
}

fn register_process(stub: &Stub, missing: &MissingPages) -> Result<(LazySpace, OwnedFd), Error> {
    let pages = missing.pages()?;
    let ranges = ranges_of(stub, &pages)?;
    drop_pages(stub, pages.runs())?;
    let mut batch = Batch::new();
    // Not UFFD_USER_MODE_ONLY: the kernel's own accesses must wait for the page, too.
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let object = stub.object();
    let fd = batch.call("make a userfaultfd in", &object, libc::SYS_userfaultfd, args![flags]);
    let number = i32::try_from(stub.run(&batch)?.raw(fd)).unwrap_or(-1);
    let process = pidfd_open(stub.pid).on("open", || stub.object())?;
    let userfaultfd =
        pidfd_getfd(process.as_fd(), number).on("take the userfaultfd of", || stub.object())?;
    let mut batch = Batch::new();
    batch.call("close our userfaultfd in", &object, libc::SYS_close, args![number]);
    stub.run(&batch)?;
    let space = LazySpace {
        pid: stub.pid,
        space: stub.space,
        missing: pages,
        ranges,
        wiped_on_fork: wiped_on_fork(stub),
    };
    Ok((space, userfaultfd))
}

/// The mappings in which pages are missing; every missing page must lie in private anonymous
/// memory, for nothing else can be completed by fault.
fn ranges_of(stub: &Stub, missing: &PageSet) -> Result<Vec<Run>, Error> {
    let fits = |mapping: &&MappingImage| {
        !mapping.shared
            && matches!(&mapping.backing, Some(BackingImage::Anonymous(kind)) if !kind.is_dev_zero)
    };
    let pages_in = |start: u64, end: u64| {
        missing.within(start, (end - start) / PAGE_BYTES).map(|run| run.pages).sum::<u64>()
    };
    let mut covered = 0;
    let mut ranges = Vec::new();
    for mapping in stub.mappings.iter().filter(fits) {
        let pages = pages_in(mapping.start, mapping.end);
        if pages > 0 {
            covered += pages;
            ranges.push(Run::covering(mapping.start, mapping.end));
        }
    }
    if covered != missing.pages() {
        let part = format!("list of missing pages of process {}", stub.pid);
        return Err(Error::invalid(
            "place the",
            Object::Image { part },
            "a page lies outside of private anonymous memory",
        ));
    }
    Ok(ranges)
}

fn wiped_on_fork(stub: &Stub) -> PageSet {
    let wiped = |mapping: &&MappingImage| mapping.advice.is_some_and(|a| a.wipe_on_fork);
    let runs = stub.mappings.iter().filter(wiped);
    runs.map(|mapping| Run::covering(mapping.start, mapping.end)).collect()
}

fn drop_pages(stub: &Stub, runs: impl Iterator<Item = Run>) -> Result<(), Error> {
    let object = stub.object();
    let mut batch = Batch::new();
    for run in runs {
        let length = run.pages * PAGE_BYTES;
        let args = args![run.address, length, MADV_DONTNEED_LOCKED];
        batch.call("drop stale pages of", &object, libc::SYS_madvise, args);
        if batch.is_full() {
            stub.run(&std::mem::take(&mut batch))?;
        }
    }
    stub.run(&batch).map(drop)
}
