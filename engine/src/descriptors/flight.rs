//! Descriptors in flight: sent through a unix socket and not yet received (SCM_RIGHTS of unix(7)).
//!
//! The queue holds descriptions, some of which no table has any more. They are found by looking
//! into the queue, which puts duplicates into our own table; from there they are looked at like
//! any other. A socket in flight may have a queue of its own, and so on.

use super::InFlightImage;
use super::look::Process;
use super::table::{Filling, Table};
use crate::error::{Error, OnObject as _};
use crate::kinds::queue::{self, Message};
use crate::kinds::{Owner, Queued, Seen};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// What lies in the queues of a tree that stands still.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// By the carrier's place in the table; the ids of descriptions are places in it too.
    pub(super) queues: BTreeMap<usize, Vec<Queued>>,
    /// Our duplicates of what only a queue has, and through whom they are looked at.
    held: Vec<OwnedFd>,
    pub(super) us: Option<Process>,
}

impl Table {
    /// Adds what is in flight. Looking changes options of the sockets for a moment, so nobody may
    /// be using them.
    pub(super) fn add_in_flight(&mut self, filling: &mut Filling) -> Result<(), Error> {
        let mut at = 0;
        while at < self.descriptions.len() {
            if carries(&self.descriptions[at]) {
                self.add_carried(at, filling)?;
            }
            at += 1;
        }
        Ok(())
    }

    fn add_carried(&mut self, carrier: usize, filling: &mut Filling) -> Result<(), Error> {
        let seen = self.descriptions[carrier].clone();
        let kind = seen.socket.as_ref().map_or(0, |socket| socket.kind);
        let local = self.steal(&seen).on("duplicate", || seen.object("socket"))?;
        let messages =
            queue::peek(local.as_fd(), kind).on("look into", || seen.object("socket"))?;
        if self.flight.us.is_none() {
            self.flight.us = Some(Process::holding_for(seen.pid)?);
        }
        let mut queue = Vec::with_capacity(messages.len());
        for Message { mut queued, descriptors } in messages {
            for descriptor in descriptors {
                let description = self.add_one(&seen, descriptor, filling)?;
                queued.descriptions.push(u32::try_from(description).unwrap_or(u32::MAX));
            }
            queue.push(queued);
        }
        self.flight.queues.insert(carrier, queue);
        Ok(())
    }

    /// The description of one descriptor in flight, which a table may have as well.
    fn add_one(
        &mut self,
        carrier: &Seen,
        descriptor: OwnedFd,
        filling: &mut Filling,
    ) -> Result<usize, Error> {
        let us = self.flight.us.as_ref().expect("it was opened before the first is added");
        let object = || carrier.object("socket");
        let missing = || Error::invalid("look into", object(), "our own duplicate is gone");
        let mut looked =
            us.look(descriptor.as_raw_fd(), &mut filling.peers)?.ok_or_else(missing)?;
        let next = self.descriptions.len();
        let found = filling.groups.find(&looked, next).on("compare", object)?;
        if found == next {
            looked.seen.in_flight_to = carrier.in_flight_to.or(Some((carrier.pid, carrier.fd)));
            self.refer_in_flight(looked);
            self.flight.held.push(descriptor);
        }
        Ok(found)
    }

    /// Who carries what no table has.
    pub(super) fn in_flight(&self) -> Vec<InFlightImage> {
        let mut images = Vec::new();
        for (&carrier, queue) in &self.flight.queues {
            let carrier = u32::try_from(carrier).unwrap_or(u32::MAX);
            let flies = |id: &u32| self.descriptions[*id as usize].in_flight_to.is_some();
            let ids = queue.iter().flat_map(|message| &message.descriptions).copied();
            images.extend(
                ids.filter(flies).map(|description| InFlightImage { description, carrier }),
            );
        }
        images
    }
}

/// `scm_fds` of fdinfo, Linux 5.9. A listening socket counts what its clients sent.
fn carries(seen: &Seen) -> bool {
    let is_listening = seen.socket.as_ref().is_some_and(|socket| socket.listening);
    !is_listening && seen.field("scm_fds").is_some_and(|count| count != "0")
}

/// Gives each description in flight the descriptor of the socket that it flies to. One that flies
/// in a circle, which no kernel keeps, gets none.
pub(super) fn add_owners(in_flight: &[InFlightImage], owners: &mut HashMap<u32, Owner>) {
    let mut by_carrier: HashMap<u32, Vec<u32>> = HashMap::new();
    for one in in_flight {
        by_carrier.entry(one.carrier).or_default().push(one.description);
    }
    let mut known: Vec<u32> = owners.keys().copied().collect();
    while let Some(carrier) = known.pop() {
        let owner = owners[&carrier];
        for description in by_carrier.remove(&carrier).unwrap_or_default() {
            if let std::collections::hash_map::Entry::Vacant(free) = owners.entry(description) {
                free.insert(owner);
                known.push(description);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flies_belongs_to_where_it_lands_and_a_circle_to_nobody() {
        let owner = Owner { pid: 7, fd: 3 };
        let flies = |description, carrier| InFlightImage { description, carrier };
        let mut owners = HashMap::from([(0, owner)]);
        add_owners(&[flies(2, 1), flies(1, 0), flies(8, 9), flies(9, 8)], &mut owners);
        assert_eq!((owners.get(&1), owners.get(&2)), (Some(&owner), Some(&owner)));
        assert_eq!((owners.get(&8), owners.len()), (None, 3));
    }
}
