//! Which descriptors share a description.
//!
//! kcmp(2) says it for any two, but asking for all pairs costs more than the freeze may. So only
//! descriptors that look alike from outside are compared, the same number of the process looked at
//! before is tried first (a fork copies the whole table), and the rest is searched in kcmp's order.

use super::look::Looked;
use crate::kinds::Seen;
use crate::sys;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;

/// What two descriptors of one description always have in common. The offset is not part of it: a
/// running program moves it between two looks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Likeness {
    device: u64,
    inode: u64,
    mount: u64,
    flags: i32,
    /// All anonymous files have one inode; the link tells their kinds apart.
    link: String,
    /// A number of its own, where the kind has one: thousands of eventfds look alike otherwise.
    identity: Option<String>,
}

/// The descriptions found so far, by their index in the table.
#[derive(Debug, Default)]
pub(super) struct Groups {
    numbers: HashMap<Likeness, usize>,
    /// Those that look alike, in kcmp's order.
    alike: Vec<Vec<Member>>,
    last_at: HashMap<i32, (usize, Member)>,
}

/// A description and a descriptor that refers to it.
#[derive(Clone, Copy, Debug)]
struct Member {
    description: usize,
    descriptor: (i32, i32),
}

impl Groups {
    /// The description that a descriptor refers to; `next` when it is a new one.
    pub(super) fn find(&mut self, looked: &Looked, next: usize) -> io::Result<usize> {
        let seen = &looked.seen;
        let group = self.group(looked);
        let new = Member { description: next, descriptor: (seen.pid, seen.fd) };
        let member = match self.probe(group, new.descriptor)? {
            Some(found) => found,
            None => find_or_insert(&mut self.alike[group], seen, new)?,
        };
        self.last_at.insert(seen.fd, (group, member));
        Ok(member.description)
    }

    fn group(&mut self, looked: &Looked) -> usize {
        let group = *self.numbers.entry(likeness(looked)).or_insert(self.alike.len());
        if group == self.alike.len() {
            self.alike.push(Vec::new());
        }
        group
    }

    /// What had the same number in the process before, if it is the same.
    fn probe(&self, group: usize, mine: (i32, i32)) -> io::Result<Option<Member>> {
        let Some(&(last_group, last)) = self.last_at.get(&mine.1) else { return Ok(None) };
        if last_group != group {
            return Ok(None);
        }
        let same = sys::fd::compare_files(mine, last.descriptor)? == Ordering::Equal;
        Ok(same.then_some(last))
    }
}

fn likeness(looked: &Looked) -> Likeness {
    let seen = &looked.seen;
    Likeness {
        device: seen.device,
        inode: seen.inode,
        mount: looked.mount,
        flags: seen.flags,
        link: seen.link.clone(),
        identity: seen.field("eventfd-id").map(str::to_owned),
    }
}

fn find_or_insert(alike: &mut Vec<Member>, seen: &Seen, new: Member) -> io::Result<Member> {
    // A socket has one description only: its inode says all.
    if let (Some(_), Some(&only)) = (&seen.socket, alike.first()) {
        return Ok(only);
    }
    let mut failure = None;
    let found = alike.binary_search_by(|member| {
        sys::fd::compare_files(member.descriptor, new.descriptor).unwrap_or_else(|error| {
            failure = Some(error);
            Ordering::Equal
        })
    });
    match (failure, found) {
        (Some(error), _) => Err(error),
        (None, Ok(place)) => Ok(alike[place]),
        (None, Err(place)) => {
            alike.insert(place, new);
            Ok(new)
        }
    }
}
