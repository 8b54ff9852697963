//! Making every object of an image, in our own process.
//!
//! The image is hostile until checked: ids may be missing, repeated or wrong, and all of that is an
//! error that names the object.

use super::{DescriptorImage, DescriptorsImage, ObjectImage};
use crate::error::{Error, Object, OnObject as _};
use crate::kinds::{DescriptionImage, KindEntry, Making, Owner, Place, kind_named};
use crate::refusal::Refusal;
use crate::sys;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Whence;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// More descriptors than any sane tree has; the kernel's own bound on one table, NR_OPEN.
const DESCRIPTORS_MAX: usize = 1 << 20;

/// Our own descriptor of every description, until it is installed everywhere.
#[derive(Debug, Default)]
pub struct Made {
    by_description: HashMap<u32, OwnedFd>,
}

impl Made {
    pub(super) fn of(&self, description: u32) -> Option<BorrowedFd<'_>> {
        self.by_description.get(&description).map(|fd| fd.as_fd())
    }
}

/// What this host lacks for an outline: all of it.
pub fn check(outline: &DescriptorsImage) -> Result<Vec<Refusal>, Error> {
    let mut missing = Vec::new();
    for part in parts(outline)? {
        missing.extend((part.kind.check)(&part.object.bytes, &part.descriptions, part.owner)?);
    }
    Ok(missing)
}

/// Makes every object, with the flags and offsets of its descriptions. The processes of the tree
/// must exist (a pidfd is opened here); our limit on open files must admit one for each.
pub fn create(image: &DescriptorsImage, stage: &dyn Making) -> Result<Made, Error> {
    let mut made = Made::default();
    for part in parts(image)? {
        let place = Place { owner: part.owner, stage };
        let fds = (part.kind.create)(&part.object.bytes, &part.descriptions, &place)?;
        if fds.len() != part.descriptions.len() {
            return Err(broken(part.object, "made too few or too many descriptors"));
        }
        for (description, fd) in part.descriptions.iter().zip(fds) {
            restore(fd.as_fd(), description).on("set up", || part.owner.object(part.kind.name))?;
            made.by_description.insert(description.id, fd);
        }
    }
    Ok(made)
}

/// Says who gets SIGIO, once every process and thread of the tree is there.
pub fn finish(image: &DescriptorsImage, made: &Made) -> Result<(), Error> {
    for description in image.descriptions.iter().filter(|one| one.owner_type >= 0) {
        let Some(fd) = made.of(description.id) else { continue };
        let owner = sys::fd::SignalOwner { kind: description.owner_type, id: description.owner };
        let set = sys::fd::set_signal_owner(fd, owner)
            .and_then(|()| sys::fd::set_owner_signal(fd, description.owner_signal));
        set.on("set the owner of", || Object::Image {
            part: format!("description {}", description.id),
        })?;
    }
    Ok(())
}

/// An object with everything that refers to it.
struct Part<'a> {
    object: &'a ObjectImage,
    kind: &'static KindEntry,
    descriptions: Vec<DescriptionImage>,
    owner: Owner,
}

fn parts(image: &DescriptorsImage) -> Result<Vec<Part<'_>>, Error> {
    let owners = owners(image)?;
    let mut descriptions: HashMap<u32, Vec<DescriptionImage>> = HashMap::new();
    let mut seen = HashSet::new();
    for one in &image.descriptions {
        if !seen.insert(one.id) {
            return Err(wrong(format!("description {}", one.id), "is there twice"));
        }
        descriptions.entry(one.object).or_default().push(*one);
    }
    let mut parts = Vec::with_capacity(image.objects.len());
    for object in &image.objects {
        let kind = kind_named(&object.kind, object.version)
            .ok_or_else(|| broken(object, "is of a kind or version that is not known here"))?;
        let descriptions = descriptions
            .remove(&object.id)
            .ok_or_else(|| broken(object, "is there twice, or nothing refers to it"))?;
        let owner = descriptions.iter().find_map(|one| owners.get(&one.id).copied());
        let owner = owner.ok_or_else(|| broken(object, "has no descriptor"))?;
        parts.push(Part { object, kind, descriptions, owner });
    }
    match descriptions.keys().next() {
        Some(id) => Err(wrong(format!("object {id}"), "is missing")),
        None => Ok(parts),
    }
}

/// One descriptor of each description, after all of them are checked.
fn owners(image: &DescriptorsImage) -> Result<HashMap<u32, Owner>, Error> {
    if image.descriptors.len() > DESCRIPTORS_MAX {
        return Err(wrong("the list of descriptors".to_owned(), "is too long"));
    }
    let known: HashSet<_> = image.descriptions.iter().map(|one| one.id).collect();
    let mut numbers = HashSet::new();
    let mut owners = HashMap::new();
    for DescriptorImage { pid, fd, description, .. } in &image.descriptors {
        let name = || format!("fd {fd} of process {pid}");
        if !known.contains(description) {
            return Err(wrong(name(), "refers to a description that is missing"));
        }
        if *pid <= 0 || !(0..i32::MAX / 2).contains(fd) || !numbers.insert((*pid, *fd)) {
            return Err(wrong(name(), "is impossible, or there twice"));
        }
        owners.entry(*description).or_insert(Owner { pid: *pid, fd: *fd });
    }
    Ok(owners)
}

fn broken(object: &ObjectImage, why: &str) -> Error {
    wrong(format!("object {} ({})", object.id, object.kind), why)
}

pub(super) fn wrong(part: String, why: &str) -> Error {
    Error::invalid("use", Object::Image { part }, why)
}

/// What F_SETFL can set: fcntl(2).
const SETTABLE: i32 =
    libc::O_APPEND | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME | libc::O_NONBLOCK;

fn restore(fd: BorrowedFd<'_>, description: &DescriptionImage) -> io::Result<()> {
    if description.flags & libc::O_PATH != 0 {
        return Ok(());
    }
    let now = fcntl(fd, FcntlArg::F_GETFL)?;
    if (now ^ description.flags) & SETTABLE != 0 {
        let flags = OFlag::from_bits_retain(description.flags & SETTABLE);
        fcntl(fd, FcntlArg::F_SETFL(flags))?;
    }
    if description.position != 0 && has_offset(fd)? {
        let offset = i64::try_from(description.position);
        let offset = offset.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        nix::unistd::lseek(fd, offset, Whence::SeekSet)?;
    }
    Ok(())
}

/// Pipes and the like always show an offset of 0 and cannot be told one.
fn has_offset(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mode = std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(mode.is_file() || mode.is_dir())
}
