//! A running tree that is to be given away: its shape and pages while it runs, then everything
//! else while it stands still.
//!
//! This file orders the work. It lives on one thread, because ptrace does.

mod eager;
mod mappings;
mod objects;
mod serving;
mod shape;
mod tracked;

use crate::capture::{self, Statuses};
use crate::clocks::Clocks;
use crate::descriptors;
use crate::error::{Error, Object};
use crate::freeze::FrozenTree;
use crate::image::{Layout, MissingPages, ProcessLayout, TreeImage};
use crate::kinds::Rules;
use crate::memory::read::While;
use crate::memory::tracker::{self, Method};
use crate::memory::{PageSet, PageSink};
use crate::tree::{self, Life, Process};
use mappings::Identities;
use objects::Objects;
pub use serving::Serving;
use shape::Shape;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracked::Tracked;

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

/// A tree taken down, but for its memory, and how long each step took.
#[derive(Debug)]
pub struct Captured {
    pub image: TreeImage,
    pub timings: Vec<(&'static str, Duration)>,
}

impl Captured {
    /// Pages that follow after the handover.
    pub fn missing_pages(&self) -> u64 {
        let runs = self.image.missing.iter().flat_map(|missing| missing.runs.chunks(2));
        runs.map(|run| run.get(1).copied().unwrap_or(0)).sum()
    }
}

#[derive(Debug)]
pub struct Source {
    root: i32,
    rules: Rules,
    method: Method,
    spaces: Spaces,
    tracked: BTreeMap<i32, Tracked>,
    objects: Objects,
    identities: Identities,
    vdso: Vec<u8>,
    statuses: Statuses,
}

impl Source {
    pub fn open(root: i32, rules: Rules) -> Result<Self, Error> {
        Ok(Self {
            root,
            rules,
            method: method()?,
            spaces: Spaces::default(),
            tracked: BTreeMap::new(),
            objects: Objects::default(),
            identities: Identities::default(),
            vdso: crate::stage::vdso::of_process(root)?.unwrap_or_default(),
            statuses: Statuses::default(),
        })
    }

    /// The clocks as the tree sees them now.
    pub fn clocks(&self) -> Result<Clocks, Error> {
        Clocks::of_process(self.root)
    }

    /// The shape of the tree now. What is new is tracked from here on.
    pub fn layout(&mut self) -> Result<Layout, Error> {
        let mut processes = tree::walk(self.root)?;
        // A vforked child has no memory of its own yet; the next look sees it with its program.
        processes.retain(|process| process.pid == self.root || !process.is_vforked());
        let layout = self.layout_of(&processes, None)?;
        self.statuses.read(layout.processes.iter().flat_map(|p| p.tids.iter().copied()));
        Ok(layout)
    }

    /// The shape of the tree while it stands still: the last one, and the true one.
    pub fn frozen_layout(&mut self, frozen: &FrozenTree) -> Result<Layout, Error> {
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
        retain_connected(&mut layouts);
        Ok(Layout { processes: layouts, shared: self.objects.images()?, vdso: self.vdso.clone() })
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
        for tracked in self.tracked.values_mut() {
            round.add(unless_gone(tracked.round(sink))?);
        }
        Ok(round)
    }

    /// Sends only what cannot follow later: shared memory, and written copies of files' pages.
    pub fn round_of_what_cannot_wait(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        let mut round = self.objects.round(sink)?;
        for tracked in self.tracked.values_mut() {
            round.add(unless_gone(tracked.round_of_what_cannot_wait(sink))?);
        }
        Ok(round)
    }

    /// How many pages a round would send now.
    pub fn peek(&mut self) -> Result<u64, Error> {
        self.tracked.values_mut().map(|tracked| tracked.peek()).sum()
    }

    /// Everything of the frozen tree but its memory. `frozen_layout` comes first.
    pub fn capture(&mut self, frozen: &FrozenTree) -> Result<Captured, Error> {
        let mut stopwatch = Stopwatch::default();
        let mut image = TreeImage { clocks: Some(self.clocks()?), ..TreeImage::default() };
        for process in frozen.processes() {
            let mappings = self.tracked.get(&process.process.pid).map(|t| t.shape.mappings());
            image.processes.push(capture::process(
                process,
                mappings.unwrap_or_default(),
                &self.statuses,
            )?);
        }
        stopwatch.lap("threads and aspects");
        image.descriptors = Some(self.capture_descriptors(frozen)?);
        stopwatch.lap("descriptors");
        Ok(Captured { image, timings: stopwatch.laps })
    }

    /// Sends the last pages, and lists in the image those that follow after the handover.
    pub fn rest(
        &mut self,
        frozen: &FrozenTree,
        captured: &mut Captured,
        later: Later,
        sink: &mut dyn PageSink,
    ) -> Result<Round, Error> {
        let mut round = self.objects.round(sink)?;
        let image = &mut captured.image;
        for process in image.processes.iter().filter(|process| !process.is_zombie) {
            let Some(tracked) = self.tracked.get_mut(&process.pid) else { continue };
            let thread = frozen.thread_of(process.pid).expect("it is captured, so it has threads");
            round.add(tracked.collect_frozen(thread, sink)?);
            let eager = match later {
                Later::Nothing => tracked.all_stale(),
                Later::WhatCanBe => tracked.needed_at_once(process),
            };
            round.add(tracked.send(&eager, While::Frozen, sink)?);
            let missing = tracked.all_stale();
            if !missing.is_empty() {
                image.missing.push(missing_image(tracked.shape.space, &missing));
            }
        }
        Ok(round)
    }

    fn capture_descriptors(
        &self,
        frozen: &FrozenTree,
    ) -> Result<descriptors::DescriptorsImage, Error> {
        let pids: Vec<i32> = frozen
            .processes()
            .iter()
            .filter(|process| !process.threads.is_empty())
            .map(|process| process.process.pid)
            .collect();
        let mut table = descriptors::collect(&pids)?;
        // A running tree's processes come and go and are left out; a frozen one's are all there.
        if let Some(&pid) = pids.iter().find(|&&pid| table.pids().all(|found| found != pid)) {
            let object = Object::Process { pid };
            return Err(Error::invalid("capture the descriptors of", object, "it has ended"));
        }
        for ((device, inode), space) in self.objects.spaces() {
            table.set_space(device, inode, space);
        }
        descriptors::capture(&table, &self.rules)
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

/// A process that ended in the middle of a round has no pages; the next layout is without it.
fn unless_gone(round: Result<Round, Error>) -> Result<Round, Error> {
    match round {
        Err(error) if error.is_gone() => Ok(Round::default()),
        other => other,
    }
}

/// The shape of a tree that is only looked at: nothing is tracked, nothing is stopped.
pub(crate) fn outline(processes: &[Process]) -> Result<Layout, Error> {
    let (mut objects, mut spaces) = (Objects::default(), Spaces::default());
    let mut identities = Identities::default();
    let mut layouts = Vec::with_capacity(processes.len());
    for process in processes {
        if process.life == Life::Zombie {
            layouts.push(shape::ids(process));
            continue;
        }
        let mut shape = Shape::of(process, spaces.next());
        match shape.layout(process, &mut objects, &mut spaces, &mut identities) {
            Ok(layout) => layouts.push(layout),
            Err(error) if error.is_gone() && !layouts.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    retain_connected(&mut layouts);
    Ok(Layout { processes: layouts, shared: objects.images()?, vdso: Vec::new() })
}

fn method() -> Result<Method, Error> {
    let why = "it has neither soft-dirty pages nor asynchronous write protection (Linux 6.7)";
    tracker::probe().ok_or_else(|| Error::invalid("track writes on", Object::Host, why))
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

fn missing_image(space: u32, missing: &PageSet) -> MissingPages {
    MissingPages { space, runs: missing.runs().flat_map(|run| [run.address, run.pages]).collect() }
}

impl Round {
    fn add(&mut self, other: Self) {
        self.data_pages += other.data_pages;
        self.zero_pages += other.zero_pages;
        self.dropped_pages += other.dropped_pages;
    }
}

/// How long each step took.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    since: Instant,
    pub(crate) laps: Vec<(&'static str, Duration)>,
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self { since: Instant::now(), laps: Vec::new() }
    }
}

impl Stopwatch {
    pub(crate) fn lap(&mut self, step: &'static str) {
        self.laps.push((step, self.since.elapsed()));
        self.since = Instant::now();
    }
}
