//! A set of descriptors that one process waits for together.
//!
//! A registration belongs to a description *and* the number it had, whatever stands at that number
//! today. So it is made again by a process that has both: the description is put at the number for
//! an instant when something else is there now.

use super::{DescriptionImage, Findings, Kind, Open, Owner, Place, Seen, Tree, sole};
use crate::args;
use crate::batch::Batch;
use crate::error::{Error, OnObject as _};
use crate::sys;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

pub(super) struct Epoll;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, repeated, tag = "1")]
    registrations: Vec<Registration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Registration {
    /// The number it was registered under.
    #[prost(int32, tag = "1")]
    number: i32,
    #[prost(uint32, tag = "2")]
    events: u32,
    #[prost(uint64, tag = "3")]
    word: u64,
    /// A process that has the epoll, and a number of the registered description there.
    #[prost(int32, tag = "4")]
    pid: i32,
    #[prost(int32, tag = "5")]
    through: i32,
    /// What stands at `number` in that process now, when it is not the registered description.
    #[prost(enumeration = "Now", tag = "6")]
    now: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
enum Now {
    Registered = 0,
    Nothing = 1,
    Other = 2,
    OtherCloseOnExec = 3,
}

impl Kind for Epoll {
    const NAME: &'static str = "epoll";
    const NEEDS_OWNER: bool = true;
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.link == "anon_inode:[eventpoll]"
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let Err(error) = registrations(of[0], tree) else { return };
        findings.refuse(
            of[0].object(Self::NAME),
            format!("cannot be rebuilt: {error}"),
            "Let the program remove that registration, or move the process that has it too.",
        );
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        let registrations = registrations(of[0].seen, tree)
            .on("find what is registered with", || of[0].seen.object(Self::NAME))?;
        Ok(Image { registrations })
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        format!("{} registered", image.registrations.len())
    }

    fn create(
        _image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![sys::fd::epoll().on("make", || at.object(Self::NAME))?])
    }

    fn connect(
        image: &Image,
        _: &DescriptionImage,
        owner: Owner,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        for one in image.registrations.iter().filter(|one| one.pid == owner.pid) {
            register(one, owner, batch);
        }
        Ok(())
    }
}

/// Every registration, with the process that can make it again.
fn registrations(seen: &Seen, tree: &dyn Tree) -> io::Result<Vec<Registration>> {
    let mut occurrences = HashMap::new();
    seen.lines("tfd")
        .map(|line| {
            let slot = parse(line)
                .ok_or_else(|| io::Error::other(format!("a registration {line:?}")))?;
            let occurrence = occurrences.entry(slot.number).or_insert(0u32);
            let found = find(seen, &slot, *occurrence, tree)?;
            *occurrence += 1;
            Ok(found)
        })
        .collect()
}

pub(super) struct Slot {
    number: i32,
    events: u32,
    word: u64,
    inode: u64,
}

/// "tfd:        5 events:       19 data:                5  pos:0 ino:9 sdev:10", see proc(5).
pub(super) fn parse(line: &str) -> Option<Slot> {
    let spaced = line.replace(':', " ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let [number, "events", events, "data", word, "pos", _, "ino", inode, "sdev", _] = words[..]
    else {
        return None;
    };
    Some(Slot {
        number: number.parse().ok()?,
        events: u32::from_str_radix(events, 16).ok()?,
        word: u64::from_str_radix(word, 16).ok()?,
        inode: u64::from_str_radix(inode, 16).ok()?,
    })
}

fn find(seen: &Seen, slot: &Slot, occurrence: u32, tree: &dyn Tree) -> io::Result<Registration> {
    let place = sys::fd::EpollSlot {
        epoll: seen.fd.cast_unsigned(),
        tfd: slot.number.cast_unsigned(),
        occurrence,
    };
    let is_it = |description: usize| {
        tree.descriptors(description)
            .first()
            .is_some_and(|&file| sys::fd::is_in_slot(file, seen.pid, place).unwrap_or(false))
    };
    let index = tree.description_at(seen.pid, seen.fd);
    let holders: Vec<i32> =
        index.map(|index| tree.descriptors(index)).unwrap_or_default().iter().map(|d| d.0).collect();
    // Nearly always it still has its number.
    for &pid in &holders {
        if tree.description_at(pid, slot.number).is_some_and(is_it) {
            return Ok(slot.at(pid, slot.number, Now::Registered));
        }
    }
    let inside = |&(pid, fd): &(i32, i32)| {
        holders.contains(&pid).then(|| slot.at(pid, fd, now_at(pid, slot.number, tree)))
    };
    let through = (0..tree.descriptions().len())
        .filter(|&other| tree.descriptions()[other].inode == slot.inode && is_it(other))
        .find_map(|other| tree.descriptors(other).iter().find_map(inside));
    if let Some(registration) = through {
        return Ok(registration);
    }
    Err(io::Error::other(format!(
        "what was registered as {} is held by no process that has the epoll",
        slot.number
    )))
}

fn now_at(pid: i32, number: i32, tree: &dyn Tree) -> Now {
    match tree.description_at(pid, number) {
        None => Now::Nothing,
        Some(_) if tree.is_close_on_exec(pid, number) => Now::OtherCloseOnExec,
        Some(_) => Now::Other,
    }
}

impl Slot {
    fn at(&self, pid: i32, through: i32, now: Now) -> Registration {
        let Self { number, events, word, .. } = *self;
        Registration { number, events, word, pid, through, now: now.into() }
    }
}

fn register(one: &Registration, owner: Owner, batch: &mut Batch) {
    let object = owner.object(Epoll::NAME);
    let now = one.now();
    let other = matches!(now, Now::Other | Now::OtherCloseOnExec).then(|| {
        let args = args![one.number, libc::F_DUPFD_CLOEXEC, 0];
        batch.call("make room in", &object, libc::SYS_fcntl, args)
    });
    if now != Now::Registered {
        let args = args![one.through, one.number, libc::O_CLOEXEC];
        batch.call("make room in", &object, libc::SYS_dup3, args);
    }
    let event = batch.bytes(&event(one));
    let args = args![owner.fd, libc::EPOLL_CTL_ADD, one.number, event];
    batch.call("register with", &object, libc::SYS_epoll_ctl, args);
    if let Some(other) = other {
        let flags = if now == Now::OtherCloseOnExec { libc::O_CLOEXEC } else { 0 };
        batch.call("put back", &object, libc::SYS_dup3, args![other, one.number, flags]);
        batch.call("put back", &object, libc::SYS_close, args![other]);
    } else if now == Now::Nothing {
        batch.call("put back", &object, libc::SYS_close, args![one.number]);
    }
}

/// `struct epoll_event`: packed on x86-64 only, see epoll_ctl(2).
fn event(one: &Registration) -> Vec<u8> {
    let mut bytes = one.events.to_ne_bytes().to_vec();
    if !cfg!(target_arch = "x86_64") {
        bytes.extend([0; 4]);
    }
    bytes.extend(one.word.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::trip::{add_to_epoll, describe, move_to_child};
    use std::os::fd::AsRawFd as _;

    fn plain(one: &Registration) -> (i32, u32, u64) {
        (one.number, one.events, one.word)
    }

    #[test]
    fn comes_back_with_its_registrations() {
        let epoll = sys::fd::epoll().unwrap();
        let (one, two) = (sys::fd::eventfd(0, 0).unwrap(), sys::fd::eventfd(0, 0).unwrap());
        add_to_epoll(&epoll, &one, libc::EPOLLIN.cast_unsigned(), 77);
        let edge = (libc::EPOLLOUT | libc::EPOLLET).cast_unsigned();
        add_to_epoll(&epoll, &two, edge, u64::MAX);
        let (before, after) = move_to_child(&[&epoll, &one, &two]).images::<Image>();
        let sorted = |image: &Image| {
            let mut all: Vec<_> = image.registrations.iter().map(plain).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&before[0]).len(), 2);
        assert_eq!(sorted(&before[0]), sorted(&after[0]));
    }

    #[test]
    fn one_registered_in_another_comes_back() {
        let (inner, outer) = (sys::fd::epoll().unwrap(), sys::fd::epoll().unwrap());
        add_to_epoll(&outer, &inner, libc::EPOLLIN.cast_unsigned(), 5);
        let (before, after) = move_to_child(&[&inner, &outer]).images::<Image>();
        assert_eq!(plain(&before[1].registrations[0]), plain(&after[1].registrations[0]));
    }

    #[test]
    fn a_registration_whose_number_was_closed_comes_back() {
        let epoll = sys::fd::epoll().unwrap();
        let kept = sys::fd::eventfd(0, 0).unwrap();
        // High, so that no other test gets the number while it is free.
        let high = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(700);
        let number = nix::fcntl::fcntl(&kept, high).unwrap();
        crate::descriptors::trip::add_number(&epoll, number, libc::EPOLLIN.cast_unsigned(), 9);
        nix::unistd::close(number).unwrap();
        let (before, after) = move_to_child(&[&epoll, &kept]).images::<Image>();
        assert_eq!(before[0].registrations[0].now(), Now::Nothing);
        assert_eq!(before[0].registrations[0].through, kept.as_raw_fd());
        assert_eq!(plain(&before[0].registrations[0]), plain(&after[0].registrations[0]));
    }

    #[test]
    fn what_is_registered_and_held_by_nobody_in_the_tree_is_refused() {
        let epoll = sys::fd::epoll().unwrap();
        let outside = sys::fd::eventfd(0, 0).unwrap();
        add_to_epoll(&epoll, &outside, libc::EPOLLIN.cast_unsigned(), 1);
        assert_eq!(describe(&[&epoll], super::super::Rules::default()).refusals.len(), 1);
    }
}
