//! A program taken down: what the source would send of it.

use crate::Result;
use engine::freeze;
use engine::image::{Layout, TreeImage};
use engine::inventory::{self, Counting, Inventory};
use engine::kinds::Rules;
use engine::memory::{PageSet, PageSink, Run};
use engine::source::{Along, Before, Later, Source};
use std::collections::BTreeMap;
use std::io;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    AllAtOnce,
    /// Whatever can be fetched by fault.
    Later,
}

#[derive(Clone, Debug)]
pub(crate) enum Record {
    Data { space: u32, address: u64, bytes: Vec<u8> },
    Zero { space: u32, address: u64, pages: u64 },
    Dropped { space: u32, address: u64, pages: u64 },
}

pub(crate) struct Recorded {
    pub(crate) inventory: Inventory,
    pub(crate) layout: Layout,
    pub(crate) image: TreeImage,
    pub(crate) records: Vec<Record>,
    pub(crate) missing: PageSet,
    /// The pages that come later, by space and address.
    pub(crate) later: BTreeMap<(u32, u64), Vec<u8>>,
}

#[derive(Default)]
struct Sink(Vec<Record>);

impl PageSink for Sink {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.push(Record::Data { space, address, bytes: bytes.to_vec() });
        Ok(())
    }
    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.0.push(Record::Zero { space, address, pages });
        Ok(())
    }
    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.0.push(Record::Dropped { space, address, pages });
        Ok(())
    }
}

/// Captures the program and ends it.
pub(crate) fn take_down(pid: i32, memory: Memory) -> Result<Recorded> {
    // ptrace wants one thread, and the tests' tasks move between several.
    std::thread::spawn(move || take_down_here(pid, memory)).join().expect("it does not panic")
}

fn take_down_here(pid: i32, memory: Memory) -> Result<Recorded> {
    let examined = inventory::examine(pid, Rules::default(), Counting::Once)?;
    anyhow::ensure!(examined.refusals.is_empty(), "{:?}", examined.refusals);
    let mut source = Source::open(pid, Rules::default(), Along::default())?;
    let mut sink = Sink::default();
    source.layout(Before::TheFreeze)?;
    let (later, _) = match memory {
        Memory::AllAtOnce => (Later::Nothing, source.round(&mut sink)?),
        Memory::Later => (Later::WhatCanBe, source.withdraw(&mut sink)?),
    };
    let frozen = freeze::freeze(pid)?;
    let layout = source.frozen_layout(&frozen)?;
    let mut captured = source.capture(&frozen)?;
    source.rest(&frozen, &mut captured, later, &mut sink)?;
    source.objects(&frozen, &mut captured)?;
    let (missing, later) = read_missing(&source, &captured.image)?;
    frozen.hold()?.end();
    let inventory = examined.inventory.expect("nothing was refused");
    Ok(Recorded { inventory, layout, image: captured.image, records: sink.0, missing, later })
}

type Pages = BTreeMap<(u32, u64), Vec<u8>>;

fn read_missing(source: &Source, image: &TreeImage) -> Result<(PageSet, Pages)> {
    let (mut set, mut sink) = (PageSet::new(), Sink::default());
    let mut serving = source.serving();
    for missing in &image.missing {
        for run in missing.runs.chunks_exact(2) {
            set.extend([Run { address: run[0], pages: run[1] }]);
            serving.answer(missing.space, run[0], run[1], &mut sink)?;
        }
    }
    Ok((set, by_page(&sink.0)))
}

fn by_page(records: &[Record]) -> Pages {
    let mut pages = Pages::new();
    for record in records {
        match record {
            Record::Data { space, address, bytes } => {
                let each = bytes.chunks(4096).zip((*address..).step_by(4096));
                pages.extend(each.map(|(page, at)| ((*space, at), page.to_vec())));
            }
            Record::Zero { space, address, pages: count }
            | Record::Dropped { space, address, pages: count } => {
                let addresses =
                    (*address..).step_by(4096).take(usize::try_from(*count).unwrap_or(0));
                pages.extend(addresses.map(|at| ((*space, at), vec![0; 4096])));
            }
        }
    }
    pages
}

impl Recorded {
    /// The pages of a run that come later, as the records of an answer.
    pub(crate) fn answer(&self, space: u32, run: Run) -> Vec<Record> {
        let addresses = (run.address..run.end()).step_by(4096);
        let found = addresses.filter_map(|address| {
            let bytes = self.later.get(&(space, address))?.clone();
            Some(Record::Data { space, address, bytes })
        });
        found.collect()
    }
}
