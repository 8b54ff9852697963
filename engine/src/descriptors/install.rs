//! Putting descriptions at their numbers, by the processes themselves.

use super::create::{Made, wrong};
use super::{DescriptorImage, DescriptorsImage};
use crate::args;
use crate::batch::Batch;
use crate::error::Error;
use crate::kinds::{Others as _, Owner, kind_named};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The first number that no descriptor of a process needs. What is only borrowed (our pidfd in the
/// table of a stub) must be at this number or above; the stub's limit on open files
/// (RLIMIT_NOFILE) must be greater by a few.
pub fn numbers_needed(image: &DescriptorsImage, pid: i32) -> i32 {
    of(image, pid).map(|one| one.fd).max().map_or(0, |highest| highest.saturating_add(1))
}

/// Writes into a batch what puts every descriptor of one process at its number. `agent` is the
/// number, in that process, of a pidfd of ours; it may not be one that is needed, and stays open.
///
/// A first descriptor of each description is fetched from us, the others are duplicated from it.
/// What was at a number before is closed.
pub fn install(
    image: &DescriptorsImage,
    made: &Made,
    pid: i32,
    agent: i32,
    batch: &mut Batch,
) -> Result<(), Error> {
    let above = numbers_needed(image, pid);
    if agent < above {
        return Err(wrong(format!("fd {agent} of process {pid}"), "is where our own is"));
    }
    let mut first = HashMap::new();
    for one in of(image, pid) {
        match first.get(&one.description) {
            Some(&number) => duplicate(one, number, batch),
            None => {
                let ours = made.of(one.description).ok_or_else(|| {
                    wrong(format!("description {}", one.description), "was not made")
                })?;
                fetch(one, ours, agent, above, batch);
                first.insert(one.description, one.fd);
            }
        }
    }
    Ok(())
}

fn of(image: &DescriptorsImage, pid: i32) -> impl Iterator<Item = &DescriptorImage> {
    image.descriptors.iter().filter(move |one| one.pid == pid)
}

fn flags(one: &DescriptorImage) -> i32 {
    if one.close_on_exec { libc::O_CLOEXEC } else { 0 }
}

/// pidfd_getfd(2) chooses the lowest free number, which may be the very one that is wanted: dup3(2)
/// refuses that. So it moves out of the way first, above every number that is needed.
fn fetch(one: &DescriptorImage, ours: BorrowedFd<'_>, agent: i32, above: i32, batch: &mut Batch) {
    let object = Owner { pid: one.pid, fd: one.fd }.object("descriptor");
    let args = args![agent, ours.as_raw_fd(), 0];
    let low = batch.call("fetch", &object, libc::SYS_pidfd_getfd, args);
    let args = args![low, libc::F_DUPFD_CLOEXEC, above];
    let high = batch.call("fetch", &object, libc::SYS_fcntl, args);
    batch.call("fetch", &object, libc::SYS_close, args![low]);
    batch.call("place", &object, libc::SYS_dup3, args![high, one.fd, flags(one)]);
    batch.call("place", &object, libc::SYS_close, args![high]);
}

fn duplicate(one: &DescriptorImage, from: i32, batch: &mut Batch) {
    let object = Owner { pid: one.pid, fd: one.fd }.object("descriptor");
    batch.call("place", &object, libc::SYS_dup3, args![from, one.fd, flags(one)]);
}

/// Writes into a batch what one process must do itself, after every table is complete: register
/// with an epoll, arm a timer, take a lock.
pub fn connect(image: &DescriptorsImage, pid: i32, batch: &mut Batch) -> Result<(), Error> {
    let mut lowest = BTreeMap::new();
    for one in of(image, pid) {
        let number = lowest.entry(one.description).or_insert(one.fd);
        *number = one.fd.min(*number);
    }
    let objects: HashMap<_, _> = image.objects.iter().map(|one| (one.id, one)).collect();
    for description in &image.descriptions {
        let Some(&fd) = lowest.get(&description.id) else { continue };
        let object = objects
            .get(&description.object)
            .ok_or_else(|| wrong(format!("object {}", description.object), "is missing"))?;
        let kind = kind_named(&object.kind, object.version)
            .ok_or_else(|| wrong(format!("object {}", object.id), "is of an unknown kind"))?;
        (kind.connect)(&object.bytes, description, Owner { pid, fd }, batch)?;
    }
    Ok(())
}
