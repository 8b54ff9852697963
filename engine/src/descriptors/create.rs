//! Making every object of an image, in our own process.
//!
//! The image is hostile until checked: ids may be missing, repeated or wrong, and all of that is an
//! error that names the object.

use super::flight;
use super::{DescriptorImage, DescriptorsImage, ObjectImage};
use crate::error::{Error, Object, OnObject as _};
use crate::kinds::{
    DescriptionImage, Ground, KindEntry, Maker, Making, Others, Owner, Place, kind_named,
};
use crate::network::Flow;
use crate::refusal::Refusal;
use crate::sys;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::unistd::Whence;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// More descriptors than any sane tree has; the kernel's own bound on one table, NR_OPEN.
const DESCRIPTORS_MAX: usize = 1 << 20;

/// The highest that fs.nr_open can be set to is above every table that memory has room for.
const NUMBER_END: i32 = 1 << 26;

/// Our own descriptor of every description, until it is installed everywhere.
#[derive(Debug, Default)]
pub struct Made {
    by_description: HashMap<u32, OwnedFd>,
}

impl Made {
    /// Duplicates of those that have something left to do when the tree may run.
    pub fn awaiting_life(&self, image: &DescriptorsImage) -> Result<Vec<Awaiting>, Error> {
        let mut awaiting = Vec::new();
        for part in parts(image)?.into_iter().filter(|part| part.kind.has_life) {
            for description in &part.descriptions {
                let Some(made) = self.of(description.id) else { continue };
                let made = made.try_clone_to_owned();
                let made = made.on("keep", || part.owner.object(part.kind.name))?;
                let bytes = part.object.bytes.clone();
                awaiting.push(Awaiting { kind: part.kind, bytes, made });
            }
        }
        Ok(awaiting)
    }
}

impl Others for Made {
    fn of(&self, description: u32) -> Option<BorrowedFd<'_>> {
        self.by_description.get(&description).map(|fd| fd.as_fd())
    }
}

/// An object of which something is left to be done when the tree has the right to run.
#[derive(Debug)]
pub struct Awaiting {
    kind: &'static KindEntry,
    bytes: Vec<u8>,
    made: OwnedFd,
}

impl Awaiting {
    pub fn go_live(&self) -> Result<(), Error> {
        (self.kind.go_live)(Some(&self.bytes), self.made.as_fd())
    }

    /// When all of them live.
    pub fn speak(&self) -> Result<(), Error> {
        (self.kind.speak)(self.made.as_fd())
    }
}

/// What this host lacks for an outline: all of it. `coming` are addresses that move with the tree.
pub fn check(outline: &DescriptorsImage, coming: &[IpAddr]) -> Result<Vec<Refusal>, Error> {
    let mut missing = Vec::new();
    for part in parts(outline)? {
        let at = Ground { owner: part.owner, coming };
        missing.extend((part.kind.check)(&part.object.bytes, &part.descriptions, at)?);
    }
    Ok(missing)
}

/// Whose packets nobody may answer until the tree lives.
pub fn flows_of(image: &DescriptorsImage) -> Result<Vec<Flow>, Error> {
    let mut flows = Vec::new();
    for object in &image.objects {
        let kind = kind_of(object)?;
        if kind.has_life {
            flows.extend((kind.flow_of)(&object.bytes)?);
        }
    }
    Ok(flows)
}

/// Every connection as if its peer was lost.
pub fn cut_off(image: &mut DescriptorsImage) -> Result<(), Error> {
    for object in &mut image.objects {
        if let Some(bytes) = (kind_of(object)?.cut_off)(&object.bytes)? {
            object.bytes = bytes;
        }
    }
    Ok(())
}

/// Tells the peers of all connections that these are over. What nobody could be told, and why.
pub fn dismiss(image: &DescriptorsImage) -> Result<Vec<Error>, Error> {
    let mut untold = Vec::new();
    for object in &image.objects {
        let told = (kind_of(object)?.dismiss)(&object.bytes)?;
        untold.extend(told.and_then(Result::err));
    }
    Ok(untold)
}

/// Makes every object, with the flags and offsets of its descriptions, and then joins them. The
/// processes of the tree must exist (a pidfd is opened here); our limit on open files must admit
/// one for each.
pub fn create(image: &DescriptorsImage, stage: &dyn Making) -> Result<Made, Error> {
    let mut made = Made::default();
    let parts = parts(image)?;
    let mut spares = Vec::with_capacity(parts.len());
    for part in &parts {
        spares.push(create_part(part, stage, &mut made)?);
    }
    for (part, spare) in parts.iter().zip(spares) {
        let place = Place { owner: part.owner, stage };
        (part.kind.join)(&part.object.bytes, &part.descriptions, &made, spare, &place)?;
    }
    Ok(made)
}

/// What was made beyond its descriptions.
fn create_part(
    part: &Part<'_>,
    stage: &dyn Making,
    made: &mut Made,
) -> Result<Vec<OwnedFd>, Error> {
    let place = Place { owner: part.owner, stage };
    let mut fds = (part.kind.create)(&part.object.bytes, &part.descriptions, &place)?;
    if fds.len() < part.descriptions.len() {
        return Err(broken(part.object, "made too few descriptors"));
    }
    let spare = fds.split_off(part.descriptions.len());
    for (description, fd) in part.descriptions.iter().zip(fds) {
        restore(fd.as_fd(), description).on("set up", || part.owner.object(part.kind.name))?;
        made.by_description.insert(description.id, fd);
    }
    Ok(spare)
}

/// The paths at which an object of the image is opened or watched, and whether it is opened for
/// writing there.
pub fn paths(image: &DescriptorsImage, object: &ObjectImage) -> Result<Vec<(String, bool)>, Error> {
    let paths = (kind_of(object)?.paths)(&object.bytes)?;
    let mut descriptions = image.descriptions.iter().filter(|one| one.object == object.id);
    let writes = descriptions.any(|one| one.access() != libc::O_RDONLY);
    Ok(paths.into_iter().map(|path| (path, writes)).collect())
}

/// Whom this host will tell others that an object of the image was made by.
pub fn identities(object: &ObjectImage) -> Result<Vec<Maker>, Error> {
    (kind_of(object)?.identities)(&object.bytes)
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
        let kind = kind_of(object)?;
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

fn kind_of(object: &ObjectImage) -> Result<&'static KindEntry, Error> {
    kind_named(&object.kind, object.version)
        .ok_or_else(|| broken(object, "is of a kind or version that is not known here"))
}

/// One descriptor of each description, after all of them are checked; of what is in flight, that
/// of the socket it flies to.
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
        if *pid <= 0 || !(0..NUMBER_END).contains(fd) || !numbers.insert((*pid, *fd)) {
            return Err(wrong(name(), "is impossible, or there twice"));
        }
        owners.entry(*description).or_insert(Owner { pid: *pid, fd: *fd });
    }
    flight::add_owners(&image.in_flight, &mut owners);
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
    let shape = fstat(fd)?.st_mode & libc::S_IFMT;
    Ok(shape == libc::S_IFREG || shape == libc::S_IFDIR)
}
