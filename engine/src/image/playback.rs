//! An image on its way back to a tree: what is filled in at once, and what follows when it runs.

use super::forks;
use super::store::Store;
use super::{Layout, MissingPages, ProcessLayout, Tree, TreeImage};
use crate::clocks::Clocks;
use crate::error::{Error, Object};
use crate::memory::fill::Filler;
use crate::memory::mapping_image::{BackingImage, MappingImage};
use crate::memory::{PAGE_BYTES, PageSet, PageSink, Run};
use crate::source::needed_at_once;
use crate::stage::{Stage, check};
use std::collections::BTreeSet;
use std::io;
use std::sync::PoisonError;

/// How much is read before the tree runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    Everything,
    /// Only what cannot be fetched by fault.
    WhatIsNeededAtOnce,
}

/// A layout and an image as a source would have sent them, and the pages behind them.
#[derive(Debug)]
pub struct Playback {
    pub layout: Layout,
    /// With the list of what is missing after [`Playback::stage`].
    pub image: TreeImage,
    store: Store,
}

impl Playback {
    pub fn new(tree: Tree, store: Store, fill: Fill) -> Result<Self, Error> {
        let part = || Object::Image { part: "tree".to_owned() };
        let whole = tree.layout.zip(tree.image);
        let (mut layout, mut image) =
            whole.ok_or_else(|| Error::invalid("read the", part(), "it has no layout"))?;
        check::check(&layout)?;
        image.missing = match fill {
            Fill::Everything => {
                forks::mark(&mut layout, &store);
                Vec::new()
            }
            // Pages that are not there yet cannot be shared.
            Fill::WhatIsNeededAtOnce => {
                layout.processes.iter_mut().for_each(|process| process.forked_from = 0);
                missing(&layout, &image, &store)?
            }
        };
        Ok(Self { layout, image, store })
    }

    /// The shell of the tree, with all pages that are not missing. `offsets`: see
    /// [`Stage::begin`].
    pub fn stage(&self, offsets: Clocks) -> Result<Stage, Error> {
        let generations = forks::generations(&self.layout);
        let mut stage = Stage::begin(&generations[0], offsets, None)?;
        let mut filled = BTreeSet::new();
        self.fill(&stage, &mut filled)?;
        for layout in &generations[1..] {
            stage.apply(layout)?;
            self.fill(&stage, &mut filled)?;
        }
        Ok(stage)
    }

    /// Puts its pages into every space that is there and not filled yet.
    fn fill(&self, stage: &Stage, filled: &mut BTreeSet<u32>) -> Result<(), Error> {
        let filler = stage.filler();
        let filler = filler.read().unwrap_or_else(PoisonError::into_inner);
        let spaces = self.store.spaces().filter(|&space| filler.has(space));
        for space in spaces.filter(|&space| filled.insert(space)) {
            let missing = self.image.missing.iter().find(|missing| missing.space == space);
            match (self.fork(space), missing) {
                (Some(parent), _) => self.fill_fork(&filler, parent, space)?,
                (None, None) => self.store.read_all(space, &mut Filling(&filler))?,
                (None, Some(missing)) => {
                    // Also zeros: in a private mapping of a file they are content.
                    let now = self.store.known(space).difference(&missing.pages()?);
                    self.read(&now, space, &filler)?;
                }
            }
        }
        Ok(())
    }

    /// The space of the parent that it was forked from.
    fn fork(&self, space: u32) -> Option<u32> {
        let is_fork = |one: &&ProcessLayout| one.space == space && one.forked_from != 0;
        self.layout.processes.iter().find(is_fork).map(|one| one.forked_from)
    }

    /// It has all that its parent has, as far as both have the same mappings. What is the same in
    /// both stays as it is, shared.
    fn fill_fork(&self, filler: &Filler, parent: u32, space: u32) -> Result<(), Error> {
        let (inherited, known) = (filler.stored(space)?, self.store.known(space));
        let shared = self.store.shared(parent, space).intersection(&inherited);
        let dropped = |run: Run| filler.dropped(space, run.address, run.pages);
        inherited.difference(&known).runs().try_for_each(dropped)?;
        self.read(&known.difference(&shared), space, filler)
    }

    fn read(&self, pages: &PageSet, space: u32, filler: &Filler) -> Result<(), Error> {
        pages.runs().try_for_each(|run| self.store.read(space, run, &mut Filling(filler)))
    }

    pub fn into_store(self) -> Store {
        self.store
    }
}

/// What can follow by fault: see [`crate::memory::lazy`].
fn missing(layout: &Layout, image: &TreeImage, store: &Store) -> Result<Vec<MissingPages>, Error> {
    let mut missing = Vec::new();
    for process in &layout.processes {
        let Some(living) = image.processes.iter().find(|one| one.pid == process.pid) else {
            continue;
        };
        let mut pages = PageSet::new();
        let data = store.data(process.space);
        for mapping in process.mappings.iter().filter(|mapping| can_follow(mapping)) {
            let run = Run::covering(mapping.start, mapping.end);
            pages.extend(data.within(run.address, run.pages));
        }
        let word = |address: u64| word(store, process.space, address);
        pages.remove_all(&needed_at_once(living, word));
        let runs = pages.runs().flat_map(|run| [run.address, run.pages]);
        if !pages.is_empty() {
            missing.push(MissingPages { space: process.space, runs: runs.collect() });
        }
    }
    Ok(missing)
}

fn can_follow(mapping: &MappingImage) -> bool {
    let is_anonymous = matches!(
        &mapping.backing,
        Some(BackingImage::Anonymous(anonymous)) if !anonymous.is_dev_zero
    );
    is_anonymous && !mapping.shared
}

/// Eight bytes of the memory in an image.
fn word(store: &Store, space: u32, address: u64) -> Option<u64> {
    let page = Run::covering(address, address + 1);
    let mut found = OnePage(None);
    store.read(space, page, &mut found).ok()?;
    let at = usize::try_from(address % PAGE_BYTES).ok()?;
    let bytes = found.0?;
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

struct OnePage(Option<Vec<u8>>);

impl PageSink for OnePage {
    fn data(&mut self, _: u32, _: u64, bytes: &[u8]) -> io::Result<()> {
        self.0 = Some(bytes.to_vec());
        Ok(())
    }

    fn zero(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn dropped(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

struct Filling<'a>(&'a Filler);

impl PageSink for Filling<'_> {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.data(space, address, bytes).map_err(io::Error::other)
    }

    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.0.zero(space, address, pages).map_err(io::Error::other)
    }

    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.0.dropped(space, address, pages).map_err(io::Error::other)
    }
}
