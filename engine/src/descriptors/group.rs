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
    alike: HashMap<Likeness, Vec<Member>>,
    last_at: HashMap<i32, usize>,
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
        let mine = (seen.pid, seen.fd);
        let members = self.alike.entry(likeness(looked)).or_default();
        let found = match probe(members, self.last_at.get(&seen.fd), mine)? {
            Some(found) => Ok(found),
            None => search(members, seen, mine)?,
        };
        let description = match found {
            Ok(description) => description,
            Err(place) => {
                members.insert(place, Member { description: next, descriptor: mine });
                next
            }
        };
        self.last_at.insert(seen.fd, description);
        Ok(description)
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

fn probe(members: &[Member], last: Option<&usize>, mine: (i32, i32)) -> io::Result<Option<usize>> {
    let Some(&last) = last else { return Ok(None) };
    let Some(member) = members.iter().find(|member| member.description == last) else {
        return Ok(None);
    };
    let same = sys::fd::compare_files(mine, member.descriptor)? == Ordering::Equal;
    Ok(same.then_some(last))
}

/// `Err` is the place where it belongs. A socket has one description only: its inode says all.
fn search(members: &[Member], seen: &Seen, mine: (i32, i32)) -> io::Result<Result<usize, usize>> {
    if let (Some(_), Some(only)) = (&seen.socket, members.first()) {
        return Ok(Ok(only.description));
    }
    let mut failure = None;
    let found = members.binary_search_by(|member| {
        sys::fd::compare_files(member.descriptor, mine).unwrap_or_else(|error| {
            failure = Some(error);
            Ordering::Equal
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(found.map(|at| members[at].description)),
    }
}
