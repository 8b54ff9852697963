//! Pages of the frozen tree that the destination still lacks: asked for by fault, or pushed.

use crate::error::{Error, Object};
use crate::image::MissingPages;
use crate::memory::read::{Pages, Reader, While};
use crate::memory::{PageRun, PageSet, PageSink, Run};
use std::collections::BTreeMap;

/// Reads without ptrace, so any one thread may have it. Pages that were sent are not sent again
/// by `push`; they are by `answer`, since an answer may have been lost with its connection.
#[derive(Debug)]
pub struct Serving {
    spaces: BTreeMap<u32, Space>,
}

#[derive(Debug)]
struct Space {
    reader: Reader,
    left: PageSet,
}

impl Serving {
    pub(super) fn new(spaces: impl Iterator<Item = (u32, i32, PageSet)>) -> Self {
        let space = |(space, pid, left)| {
            (space, Space { reader: Reader::new(pid, Pages::MayBeShared), left })
        };
        Self { spaces: spaces.filter(|(_, _, left)| !left.is_empty()).map(space).collect() }
    }

    /// Of a frozen tree whose account was lost with an agent, or is older than what the destination
    /// says: exactly the pages that it still lacks. `spaces` are (space, pid).
    pub fn of(
        spaces: impl Iterator<Item = (u32, i32)>,
        missing: &[MissingPages],
    ) -> Result<Self, Error> {
        let mut spaces: BTreeMap<u32, Space> = spaces
            .map(|(space, pid)| {
                (
                    space,
                    Space { reader: Reader::new(pid, Pages::MayBeShared), left: PageSet::new() },
                )
            })
            .collect();
        for one in missing {
            if let Some(space) = spaces.get_mut(&one.space) {
                space.left.insert_all(&one.pages()?);
            }
        }
        Ok(Self { spaces })
    }

    pub fn pages_left(&self) -> u64 {
        self.spaces.values().map(|space| space.left.pages()).sum()
    }

    /// Sends the pages that were asked for, as far as there are such.
    pub fn answer(
        &mut self,
        space: u32,
        address: u64,
        pages: u64,
        sink: &mut dyn PageSink,
    ) -> Result<(), Error> {
        let object = || Object::Image { part: format!("memory of space {space}") };
        let found = self.spaces.get_mut(&space);
        let found = found.ok_or_else(|| Error::invalid("find the", object(), "nobody lacks it"))?;
        found.read(space, Run { address, pages }, sink)?;
        found.left.remove(address, pages);
        Ok(())
    }

    /// Sends the next run of at most `pages_max` pages that nobody asked for; false at the end.
    pub fn push(&mut self, pages_max: u64, sink: &mut dyn PageSink) -> Result<bool, Error> {
        let next = self.spaces.iter_mut().find_map(|(&number, space)| {
            let run = space.left.runs().next()?;
            Some((number, space, Run { pages: run.pages.min(pages_max), ..run }))
        });
        let Some((number, space, run)) = next else { return Ok(false) };
        space.read(number, run, sink)?;
        space.left.remove(run.address, run.pages);
        Ok(true)
    }
}

impl Space {
    fn read(&mut self, space: u32, run: Run, sink: &mut dyn PageSink) -> Result<(), Error> {
        let run = PageRun { address: run.address, pages: run.pages, zero: false };
        self.reader.read(space, [run], While::Frozen, sink).map(drop)
    }
}
