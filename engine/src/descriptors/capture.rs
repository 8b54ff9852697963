//! Reading every object of a tree, through duplicates of our own.

use super::examine::Judged;
use super::table::{ObjectSeen, Table};
use super::{DescriptorImage, DescriptorsImage, ObjectImage};
use crate::error::{Error, OnObject as _};
use crate::kinds::{DescriptionImage, KindEntry, Open, Rules};
use crate::sys;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Reads a frozen tree. Only reads: its processes can go on as if nobody had looked.
///
/// One object's duplicates are open at a time, so our own limit does not bound the tree's.
/// An object that [`super::examine`] would refuse is an error.
pub fn capture(table: &Table, rules: &Rules) -> Result<DescriptorsImage, Error> {
    let mut image = read(table, rules, |kind, of, judged| (kind.capture)(of, judged).map(Some))?;
    image.descriptors = table.descriptors.iter().map(describe).collect();
    Ok(image)
}

/// What the destination must have, for [`super::check`]: files, devices, addresses. Without any
/// content, and without the objects that any host can make. The tree may be running.
pub fn outline(table: &Table, rules: &Rules) -> Result<DescriptorsImage, Error> {
    let mut image = read(table, rules, |kind, of, judged| (kind.outline)(of, judged))?;
    let first = |id: u32| table.descriptors.iter().find(|one| one.description == id as usize);
    image.descriptors =
        image.descriptions.iter().filter_map(|one| first(one.id)).map(describe).collect();
    Ok(image)
}

type Read = fn(&KindEntry, &[Open<'_>], &Judged<'_>) -> Result<Option<Vec<u8>>, Error>;

fn read(table: &Table, rules: &Rules, read: Read) -> Result<DescriptorsImage, Error> {
    let judged = Judged { table, rules };
    let mut image = DescriptorsImage::default();
    for object in &table.objects {
        let Some(kind) = object.kind else { continue };
        let locals = steal(table, object)?;
        let opens = opens(table, object, &locals);
        let Some(bytes) = read(kind, &opens, &judged)? else { continue };
        let id = u32::try_from(image.objects.len()).unwrap_or(u32::MAX);
        let (name, version) = (kind.name.to_owned(), kind.version);
        image.objects.push(ObjectImage { id, kind: name, version, bytes });
        for open in &opens {
            image.descriptions.push(description(kind, open, id)?);
        }
    }
    Ok(image)
}

fn steal(table: &Table, object: &ObjectSeen) -> Result<Vec<OwnedFd>, Error> {
    let steal = |&at: &usize| {
        let seen = &table.descriptions[at];
        table.steal(seen).on("duplicate", || seen.object("descriptor"))
    };
    object.descriptions.iter().map(steal).collect()
}

fn opens<'a>(table: &'a Table, object: &ObjectSeen, locals: &'a [OwnedFd]) -> Vec<Open<'a>> {
    let open = |(&index, local): (&usize, &'a OwnedFd)| Open {
        seen: &table.descriptions[index],
        local: local.as_fd(),
        index,
    };
    object.descriptions.iter().zip(locals).map(open).collect()
}

fn describe(descriptor: &super::table::Descriptor) -> DescriptorImage {
    DescriptorImage {
        pid: descriptor.pid,
        fd: descriptor.fd,
        close_on_exec: descriptor.close_on_exec,
        description: u32::try_from(descriptor.description).unwrap_or(u32::MAX),
    }
}

fn description(kind: &KindEntry, open: &Open<'_>, object: u32) -> Result<DescriptionImage, Error> {
    let seen = open.seen;
    let owner = match seen.is_path_only() {
        true => None,
        false => owner(open.local).on("ask for the owner of", || seen.object(kind.name))?,
    };
    let (signal_owner, owner_signal) =
        owner.unwrap_or((sys::fd::SignalOwner { kind: -1, id: 0 }, 0));
    Ok(DescriptionImage {
        id: u32::try_from(open.index).unwrap_or(u32::MAX),
        object,
        role: (kind.role)(open)?,
        flags: seen.flags,
        position: seen.position,
        owner_type: signal_owner.kind,
        owner: signal_owner.id,
        owner_signal,
    })
}

fn owner(local: BorrowedFd<'_>) -> io::Result<Option<(sys::fd::SignalOwner, i32)>> {
    let owner = sys::fd::signal_owner(local)?;
    let signal = sys::fd::owner_signal(local)?;
    Ok((owner.id != 0 || signal != 0).then_some((owner, signal)))
}
