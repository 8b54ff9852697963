//! A running tree that is to be given away: its shape and pages while it runs, then everything
//! else while it stands still.
//!
//! This file orders the work. It lives on one thread, because ptrace does.

mod eager;
mod frozen;
mod mappings;
mod network;
mod objects;
mod outline;
mod serving;
mod shape;
mod sharing;
mod surroundings;
mod tracked;

use crate::clocks::Clocks;
use crate::descriptors::{self, Table};
use crate::error::{Error, Object};
use crate::freeze::FrozenTree;
use crate::image::{Layout, ProcessLayout};
use crate::kinds::Rules;
use crate::memory::PageSink;
use crate::memory::read::Pages;
use crate::memory::tracker::{self, Method};
use crate::tree::{self, Life, Process};
pub(crate) use eager::of_process as needed_at_once;
pub use frozen::Captured;
use mappings::Identities;
use network::Network;
pub use network::{Gates, Waiting};
use objects::Objects;
pub(crate) use outline::outline;
pub use serving::Serving;
pub use sharing::Before;
pub(crate) use sharing::{WORTH_PAGES, can_be_made_anew};
use std::collections::BTreeMap;
pub use surroundings::Along;
use surroundings::Surroundings;
use tracked::{Birth, Tracked};

/// Numbers for address spaces and shared objects; each is given out once.
#[derive(Debug, Default)]
pub(crate) struct Spaces(u32);

impl Spaces {
    pub(crate) fn next(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }
}

/// How much of the memory may follow after the handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// Nothing: every page is sent while the tree stands still.
    Nothing,
    /// All that is not needed at once, and can be fetched by fault.
    WhatCanBe,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub data_pages: u64,
    pub zero_pages: u64,
    pub dropped_pages: u64,
}

/// What would have to be sent now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub dirty_pages: u64,
    /// Of processes of which nothing is sent before the pages of their parents have landed.
    pub held_back_pages: u64,
    /// To be compared in the freeze with what was sent, whether or not they were written.
    pub compared_pages: u64,
}

#[derive(Debug)]
pub struct Source {
    root: i32,
    rules: Rules,
    addresses: Vec<String>,
    has_connections: bool,
    method: Method,
    spaces: Spaces,
    tracked: BTreeMap<i32, Tracked>,
    objects: Objects,
    identities: Identities,
    vdso: Vec<u8>,
    network: Network,
    /// When it lives in a network namespace of its own.
    surroundings: Option<Surroundings>,
    /// Every descriptor of the frozen tree.
    table: Option<Table>,
}

impl Source {
    pub fn open(root: i32, rules: Rules, along: Along) -> Result<Self, Error> {
        let surroundings = Surroundings::of(root, &along.bridges)?;
        let _inside = surroundings::enter(surroundings.as_ref())?;
        let table = collect_running(root)?;
        // A namespace of its own is silent as a whole.
        let has_connections =
            surroundings.is_none() && descriptors::have_connections(&table, &rules)?;
        Ok(Self {
            root,
            rules,
            addresses: along.addresses,
            has_connections,
            surroundings,
            method: method()?,
            spaces: Spaces::default(),
            tracked: BTreeMap::new(),
            objects: Objects::default(),
            identities: Identities::default(),
            vdso: crate::stage::vdso::of_process(root)?.unwrap_or_default(),
            network: Network::default(),
            table: None,
        })
    }

    /// The clocks as the tree sees them now.
    pub fn clocks(&self) -> Result<Clocks, Error> {
        Clocks::of_process(self.root)
    }

    /// The shape of the tree now. What is new is tracked from here on. Every round that was sent
    /// has landed, and every layout is followed by its round, except for the first.
    pub fn layout(&mut self, before: Before) -> Result<Layout, Error> {
        let mut processes = tree::walk(self.root)?;
        // A vforked child has no memory of its own yet; the next look sees it with its program.
        processes.retain(|process| process.pid == self.root || !process.is_vforked());
        let mut layout = self.layout_of(&processes, None)?;
        sharing::settle(&mut self.tracked, &mut layout.processes, &mut self.spaces, before)?;
        Ok(layout)
    }

    /// The shape of the tree while it stands still: the last one, and the true one.
    pub fn frozen_layout(&mut self, frozen: &FrozenTree) -> Result<Layout, Error> {
        self.surroundings.as_ref().map_or(Ok(()), Surroundings::confirm)?;
        let processes: Vec<Process> =
            frozen.processes().iter().map(|frozen| frozen.process.clone()).collect();
        self.layout_of(&processes, Some(frozen))
    }

    fn layout_of(
        &mut self,
        processes: &[Process],
        frozen: Option<&FrozenTree>,
    ) -> Result<Layout, Error> {
        self.tracked.retain(|pid, tracked| {
            let is_it = |p: &&Process| p.pid == *pid && tracked.shape.is_still(p);
            processes.iter().find(is_it).is_some_and(|p| p.life != Life::Zombie)
        });
        let mut layouts = Vec::with_capacity(processes.len());
        for process in processes {
            match self.process_layout(process, frozen) {
                Ok(layout) => layouts.push(layout),
                // It ended while we looked, and the next look will not see it.
                Err(error) if error.is_gone() && process.pid != self.root => {
                    self.tracked.remove(&process.pid);
                }
                Err(error) => return Err(error),
            }
        }
        // A fork shares with whoever has forked it or was forked by it, living or not.
        let pages = match processes.iter().any(Process::is_fork) {
            true => Pages::MayBeShared,
            false => Pages::OfItsOwn,
        };
        self.tracked.values_mut().for_each(|tracked| tracked.memory.expect(pages));
        retain_connected(&mut layouts);
        Ok(Layout {
            processes: layouts,
            shared: self.objects.images()?,
            vdso: self.vdso.clone(),
            addresses: self.addresses.clone(),
            has_connections: self.has_connections,
            network: self.surroundings.as_ref().map(|surroundings| surroundings.image.clone()),
        })
    }

    fn process_layout(
        &mut self,
        process: &Process,
        frozen: Option<&FrozenTree>,
    ) -> Result<ProcessLayout, Error> {
        let pid = process.pid;
        if process.life == Life::Zombie {
            return Ok(shape::ids(process));
        }
        if !self.tracked.contains_key(&pid) {
            let stopped = frozen.and_then(|frozen| frozen.thread_of(pid));
            let tracked = Tracked::open(process, self.spaces.next(), self.method, stopped)?;
            self.tracked.insert(pid, tracked);
        }
        let tracked = self.tracked.get_mut(&pid).expect("just inserted");
        let Self { objects, spaces, identities, .. } = self;
        tracked.shape.layout(process, objects, spaces, identities)
    }

    /// Sends everything that was written since the last round, as of the last `layout`.
    pub fn round(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        let mut round = self.objects.round(sink)?;
        let settled = self.tracked.values_mut().filter(|t| t.birth == Birth::Settled);
        for tracked in settled {
            round.add(unless_gone(tracked.round(sink))?);
        }
        Ok(round)
    }

    /// Sends only what cannot follow later: shared memory, and written copies of files' pages. All
    /// else that was written the destination is told to forget now, before the freeze.
    pub fn withdraw(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        let mut round = self.objects.round(sink)?;
        for tracked in self.tracked.values_mut() {
            round.add(unless_gone(tracked.withdraw(sink))?);
        }
        Ok(round)
    }

    /// How many pages there are to be sent now. Those of a process that was just forked are not
    /// looked at closely: that many are there.
    pub fn peek(&mut self) -> Result<Left, Error> {
        let new = tree::walk(self.root)?.into_iter();
        let new = new.filter(|process| !self.tracked.contains_key(&process.pid));
        let new = new.filter(|process| !process.is_vforked());
        let dirty_pages = new.map(|process| process.private_pages()).sum();
        let mut left = Left { dirty_pages, ..Left::default() };
        for tracked in self.tracked.values_mut() {
            left.compared_pages += tracked.memory.compared_pages();
            match tracked.birth {
                Birth::Settled => left.dirty_pages += tracked.peek()?,
                Birth::Undecided | Birth::HeldBack => {
                    left.held_back_pages += tracked.memory.stale().pages();
                }
            }
        }
        Ok(left)
    }

    /// The numbers of the address spaces, and whose they are: (space, pid).
    pub fn spaces(&self) -> impl Iterator<Item = (u32, i32)> {
        self.tracked.values().map(|tracked| (tracked.shape.space, tracked.shape.pid))
    }

    /// What is left to be fetched from the frozen tree; may be used from any thread.
    pub fn serving(&self) -> Serving {
        Serving::new(self.tracked.values().map(|t| (t.shape.space, t.shape.pid, t.all_stale())))
    }
}

fn collect_running(root: i32) -> Result<Table, Error> {
    let processes = tree::walk(root)?;
    let alive = processes.iter().filter(|process| process.life != Life::Zombie);
    descriptors::collect(&alive.map(|process| process.pid).collect::<Vec<_>>())
}

/// A process that ended in the middle of a round has no pages; the next layout is without it.
fn unless_gone(round: Result<Round, Error>) -> Result<Round, Error> {
    match round {
        Err(error) if error.is_gone() => Ok(Round::default()),
        other => other,
    }
}

fn method() -> Result<Method, Error> {
    let none = "it has neither soft-dirty pages nor asynchronous write protection (Linux 6.7)";
    let why = || match std::env::var_os(tracker::ALLOWED) {
        Some(name) => format!("{}={} allows nothing that it has", tracker::ALLOWED, name.display()),
        None => none.to_owned(),
    };
    tracker::probe().ok_or_else(|| Error::invalid("track writes on", Object::Host, why()))
}

/// A child whose parent was not seen any more cannot be placed; the next look sees it elsewhere.
fn retain_connected(layouts: &mut Vec<ProcessLayout>) {
    let mut seen = std::collections::BTreeSet::new();
    let root = layouts.first().map(|layout| layout.pid);
    layouts.retain(|layout| {
        let connected = Some(layout.pid) == root || seen.contains(&layout.ppid);
        if connected {
            seen.insert(layout.pid);
        }
        connected
    });
}

impl Round {
    fn add(&mut self, other: Self) {
        self.data_pages += other.data_pages;
        self.zero_pages += other.zero_pages;
        self.dropped_pages += other.dropped_pages;
    }
}
