//! Taking down a tree that stands still.

use super::{Later, Round, Source, surroundings};
use crate::capture;
use crate::descriptors::{self, Table};
use crate::error::{Error, Object};
use crate::freeze::FrozenTree;
use crate::image::{MissingPages, TreeImage};
use crate::memory::read::While;
use crate::memory::{PageSet, PageSink};
use crate::stopwatch::Stopwatch;
use std::time::Duration;

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

impl Source {
    /// Everything of the frozen tree but its memory and what is behind its descriptors.
    /// `frozen_layout` comes first.
    pub fn capture(&mut self, frozen: &FrozenTree) -> Result<Captured, Error> {
        let mut stopwatch = Stopwatch::default();
        let mut image = TreeImage { clocks: Some(self.clocks()?), ..TreeImage::default() };
        for process in frozen.processes() {
            let mappings = self.tracked.get(&process.process.pid).map(|t| t.shape.mappings());
            image.processes.push(capture::process(process, mappings.unwrap_or_default())?);
        }
        stopwatch.lap("threads and aspects");
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

    /// What is behind the descriptors, last of all: from here on nobody hears of the tree's
    /// connections, and they hear of nobody. Until here the kernel has taken for the program what its
    /// peers had to say. What is lost from here on is said again, but after 200 ms at best.
    pub fn objects(&mut self, frozen: &FrozenTree, captured: &mut Captured) -> Result<(), Error> {
        let mut stopwatch = Stopwatch::default();
        let _inside = surroundings::enter(self.surroundings.as_ref())?;
        let table = match &mut self.table {
            Some(table) => table,
            None => self.table.insert(collect(frozen)?),
        };
        for ((device, inode), space) in self.objects.spaces() {
            table.set_space(device, inode, space);
        }
        if self.surroundings.is_none() {
            self.network.hold_flows(table, &self.rules)?;
        }
        stopwatch.lap("silence");
        captured.image.descriptors = Some(descriptors::capture(table, &self.rules)?);
        stopwatch.lap("descriptors");
        captured.timings.extend(stopwatch.laps);
        Ok(())
    }
}

/// Every descriptor of a tree that stands still.
pub(super) fn collect(frozen: &FrozenTree) -> Result<Table, Error> {
    let alive = frozen.processes().iter().filter(|process| !process.threads.is_empty());
    let pids: Vec<i32> = alive.map(|process| process.process.pid).collect();
    let table = descriptors::collect_frozen(&pids)?;
    // A running tree's processes come and go and are left out; a frozen one's are all there.
    if let Some(&pid) = pids.iter().find(|&&pid| table.pids().all(|found| found != pid)) {
        let object = Object::Process { pid };
        return Err(Error::invalid("capture the descriptors of", object, "it has ended"));
    }
    Ok(table)
}

fn missing_image(space: u32, missing: &PageSet) -> MissingPages {
    MissingPages { space, runs: missing.runs().flat_map(|run| [run.address, run.pages]).collect() }
}
