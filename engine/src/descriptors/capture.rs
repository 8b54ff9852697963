//! Reading every object of a tree, through duplicates of our own.

use super::examine::{Judged, refuse_in_flight};
use super::table::{ObjectSeen, Table};
use super::{DescriptorImage, DescriptorsImage, ObjectImage};
use crate::error::{Error, OnObject as _};
use crate::kinds::{DescriptionImage, KindEntry, Open, Rules, Seen};
use crate::sys;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Reads a frozen tree. Only reads: its processes can go on as if nobody had looked.
///
/// One object's duplicates are open at a time, so our own limit does not bound the tree's.
/// An object that [`super::examine`] would refuse is an error.
pub fn capture(table: &Table, rules: &Rules) -> Result<DescriptorsImage, Error> {
    if let Some(refusal) = refuse_in_flight(&Judged { table, rules }) {
        return Err(Error::invalid("capture", refusal.object, refusal.reason));
    }
    let take = |kind: &KindEntry, of: &[Open<'_>], judged: &Judged<'_>| {
        (kind.capture)(of, judged).map(Some)
    };
    let mut image = read(table, rules, steal, take)?;
    image.descriptors = table.descriptors.iter().map(describe).collect();
    image.in_flight = table.in_flight();
    Ok(image)
}

/// What the destination must have, for [`super::check`]: files, devices, addresses. Without any
/// content, and without the objects that any host can make. The tree may be running: what it has
/// closed since it was looked at is left out.
pub fn outline(table: &Table, rules: &Rules) -> Result<DescriptorsImage, Error> {
    let take = |kind: &KindEntry, of: &[Open<'_>], judged: &Judged<'_>| (kind.outline)(of, judged);
    let mut image = read(table, rules, Table::steal_what_is_left, take)?;
    let first = |id: u32| table.descriptors.iter().find(|one| one.description == id as usize);
    image.descriptors =
        image.descriptions.iter().filter_map(|one| first(one.id)).map(describe).collect();
    Ok(image)
}

type Steal = fn(&Table, &Seen) -> io::Result<Option<OwnedFd>>;
type Take = fn(&KindEntry, &[Open<'_>], &Judged<'_>) -> Result<Option<Vec<u8>>, Error>;

fn read(table: &Table, rules: &Rules, steal: Steal, take: Take) -> Result<DescriptorsImage, Error> {
    let judged = Judged { table, rules };
    let mut image = DescriptorsImage::default();
    for object in &table.objects {
        let Some(kind) = object.kind else { continue };
        let locals = locals(table, object, steal)?;
        let opens: Vec<_> =
            locals.iter().map(|(index, local)| open(table, *index, local)).collect();
        if opens.is_empty() {
            continue;
        }
        let Some(bytes) = take(kind, &opens, &judged)? else { continue };
        let id = u32::try_from(image.objects.len()).unwrap_or(u32::MAX);
        let (name, version) = (kind.name.to_owned(), kind.version);
        image.objects.push(ObjectImage { id, kind: name, version, bytes });
        for open in &opens {
            image.descriptions.push(description(kind, open, id)?);
        }
    }
    Ok(image)
}

/// Our own duplicates of an object's descriptions, by their place in the table.
fn locals(
    table: &Table,
    object: &ObjectSeen,
    steal: Steal,
) -> Result<Vec<(usize, OwnedFd)>, Error> {
    let mut locals = Vec::with_capacity(object.descriptions.len());
    for &index in &object.descriptions {
        let seen = &table.descriptions[index];
        let local = steal(table, seen).on("duplicate", || seen.object("descriptor"))?;
        locals.extend(local.map(|local| (index, local)));
    }
    Ok(locals)
}

fn steal(table: &Table, seen: &Seen) -> io::Result<Option<OwnedFd>> {
    table.steal(seen).map(Some)
}

fn open<'a>(table: &'a Table, index: usize, local: &'a OwnedFd) -> Open<'a> {
    Open { seen: &table.descriptions[index], local: local.as_fd(), index }
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

#[cfg(test)]
mod tests {
    use super::super::trip::us;
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd as _;

    fn opened() -> (OwnedFd, File, Table) {
        let first = OwnedFd::from(File::open("/etc/passwd").unwrap());
        let second = File::open("/etc/group").unwrap();
        let table = Table::of(us(), &[first.as_raw_fd(), second.as_raw_fd()]).unwrap();
        (first, second, table)
    }

    #[test]
    fn what_was_closed_since_it_was_looked_at_is_left_out_of_an_outline() {
        let (mut first, second, table) = opened();
        assert_eq!(outline(&table, &Rules::default()).unwrap().objects.len(), 2);
        // The number stays taken, so that no other test of this process opens something at it.
        nix::unistd::dup2(&second, &mut first).unwrap();
        assert_eq!(outline(&table, &Rules::default()).unwrap().objects.len(), 1);
    }
}
