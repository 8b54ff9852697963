//! A tree's connections, from shortly before the freeze until they live elsewhere or go on here.

use super::frozen::collect;
use super::{Source, collect_running, surroundings};
use crate::descriptors::{self, Table};
use crate::error::{Error, Object, OnObject as _};
use crate::freeze::FrozenTree;
use crate::kinds::{HeldObject, Rules, Wait, orphans};
use crate::network::{Address, Knocks, Lock};
use std::net::IpAddr;

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Made before the freeze, for a tree that has anything to be held.
    lock: Option<Lock>,
    /// Of what the lock drops.
    knocks: Option<Knocks>,
    held: Vec<HeldObject>,
}

/// What the tree should not be stopped at now: somebody waits for the program to take it in, say.
#[derive(Debug)]
pub struct Waiting {
    pub at: Object,
    pub wait: Wait,
}

/// The gates that were shut, of a tree that runs.
#[derive(Debug)]
pub struct Gates {
    table: Table,
    rules: Rules,
}

impl Gates {
    /// What the tree should not be stopped at.
    pub fn waiting(&self) -> Option<Waiting> {
        // What cannot be asked has been closed.
        let waiting = descriptors::waiting(&self.table, &self.rules).ok()?;
        waiting.map(|(at, wait)| Waiting { at, wait })
    }
}

impl Source {
    /// Shortly before the freeze: nobody new comes in, so that the program can take in those who
    /// wait already. Newcomers ask again after a second, see tcp(7).
    pub fn shut_gates(&mut self) -> Result<Gates, Error> {
        let _inside = surroundings::enter(self.surroundings.as_ref())?;
        let table = collect_running(self.root)?;
        match self.surroundings {
            None => self.network.shut_gates(&table, &self.rules)?,
            Some(_) => self.network.shut_gates_alone(&table, &self.rules)?,
        }
        Ok(Gates { table, rules: self.rules })
    }

    /// Right after the freeze: what it should not have been stopped at.
    pub fn waiting(&mut self, frozen: &FrozenTree) -> Result<Option<Waiting>, Error> {
        let _inside = surroundings::enter(self.surroundings.as_ref())?;
        let waiting = descriptors::waiting(self.table.insert(collect(frozen)?), &self.rules)?;
        Ok(waiting.map(|(at, wait)| Waiting { at, wait }))
    }

    /// How many connections that the program has closed would never be heard to their end: they stay
    /// here, and the tree takes their addresses away.
    pub fn unheard(&self) -> Result<usize, Error> {
        let leaving: Vec<IpAddr> = self.addresses.iter().filter_map(|text| ip(text)).collect();
        if leaving.is_empty() && self.surroundings.is_none() {
            return Ok(0);
        }
        let _inside = surroundings::enter(self.surroundings.as_ref())?;
        let leaves = |ip| self.surroundings.is_some() || leaving.contains(&ip);
        orphans::unheard(leaves).on("list the closed connections of", || Object::Host)
    }

    /// Before the right to run is given away: what still comes for the connections changes nothing
    /// any more, also when we die. Whoever comes after us must know what was done.
    pub fn hold_originals(&mut self) -> Result<&[HeldObject], Error> {
        let Some(table) = &self.table else { return Ok(&[]) };
        self.network.hold_originals(table, &self.rules)
    }

    /// It runs elsewhere, with its addresses: what came for its connections since they were silent is
    /// sent after it.
    pub fn send_after(&mut self) -> Result<(), Error> {
        self.network.send_after()
    }

    /// The tree's connections go on here.
    pub fn take_back(&mut self) -> Result<(), Error> {
        self.network.take_back()
    }
}

fn ip(address: &str) -> Option<IpAddr> {
    address.parse().ok().map(|address: Address| address.ip)
}

impl Network {
    pub(super) fn shut_gates(&mut self, running: &Table, rules: &Rules) -> Result<(), Error> {
        let (gates, flows) =
            (descriptors::gates(running, rules)?, descriptors::flows(running, rules)?);
        if gates.is_empty() && flows.is_empty() {
            return Ok(());
        }
        let knocks = Knocks::listen(&gates, &flows)?;
        // It is not the first attempt: who knocked at the gates since then has not been heard.
        self.knocks = Some(match self.knocks.take() {
            Some(before) => knocks.after(before),
            None => knocks,
        });
        self.lock()?.shut(&gates)
    }

    /// In a namespace of its own a tree is kept silent as a whole, and only newcomers one by one.
    pub(super) fn shut_gates_alone(&mut self, running: &Table, rules: &Rules) -> Result<(), Error> {
        let gates = descriptors::gates(running, rules)?;
        if gates.is_empty() { Ok(()) } else { self.lock()?.shut(&gates) }
    }

    /// From here on nothing of its connections comes in or goes out.
    pub(super) fn hold_flows(&mut self, frozen: &Table, rules: &Rules) -> Result<(), Error> {
        let flows = descriptors::flows(frozen, rules)?;
        if let Some(knocks) = &mut self.knocks {
            knocks.held(&flows);
        }
        if !flows.is_empty() {
            self.lock()?.hold(&flows)?;
        }
        Ok(())
    }

    /// From here on nothing changes them, also when we die.
    pub(super) fn hold_originals(
        &mut self,
        frozen: &Table,
        rules: &Rules,
    ) -> Result<&[HeldObject], Error> {
        descriptors::hold(frozen, rules, &mut self.held)?;
        Ok(&self.held)
    }

    /// They go on here.
    pub(super) fn take_back(&mut self) -> Result<(), Error> {
        let result = descriptors::take_back(&self.held);
        self.held.clear();
        let lock = self.lock.as_mut();
        let result = result.and(lock.map_or(Ok(()), Lock::clear));
        result.and(self.send_after())
    }

    /// What came for them meanwhile is sent to where they live now.
    pub(super) fn send_after(&mut self) -> Result<(), Error> {
        let sent = self.knocks.take().map(Knocks::send_after).transpose()?;
        tracing::debug!(segments = sent.unwrap_or(0), "sent after the tree");
        Ok(())
    }

    fn lock(&mut self) -> Result<&mut Lock, Error> {
        if self.lock.is_none() {
            self.lock = Some(Lock::open()?);
        }
        Ok(self.lock.as_mut().expect("just made"))
    }
}
