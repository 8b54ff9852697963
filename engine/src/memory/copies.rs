//! The copies that a process made of a file's pages by writing, and what was sent of each.
//!
//! Of these a mark is not the whole truth. When a marked copy is thrown away, its mark stays; the
//! next write makes a new copy, marked as well, and only when the instruction is tried again does
//! the mark go. A thread that is stopped between the two leaves a page that counts as unwritten,
//! and holds what the file holds. So of the last look's copies the content is compared: 0.25 ms a
//! MiB, of the written data segments of a program and its libraries.

use super::mapping::Mapping;
use super::read::{Reader, While};
use super::{PAGE_BYTES, PageRun, PageSet, PageSink, Run};
use crate::error::Error;
use std::collections::HashMap;
use std::io;
use xxhash_rust::xxh3::xxh3_64;

const PAGE: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct Copies {
    /// The private mappings of files, as of the last look.
    of_files: PageSet,
    /// The hash of every page of these that was sent.
    sent: HashMap<u64, u64>,
}

impl Copies {
    pub(super) fn look(&mut self, mappings: &[Mapping]) {
        let of_files = mappings.iter().filter(|mapping| mapping.is_private_file());
        self.of_files = of_files.map(|mapping| Run::covering(mapping.start, mapping.end)).collect();
    }

    /// Hands everything on, and remembers what concerns it.
    pub(super) fn noting<'a>(&'a mut self, sink: &'a mut dyn PageSink) -> Noting<'a> {
        Noting { copies: self, sink }
    }

    pub(super) fn sent_pages(&self) -> u64 {
        self.sent.len() as u64
    }

    pub(super) fn forget(&mut self, pages: &PageSet) {
        self.sent.retain(|&page, _| !pages.contains(page));
    }

    /// Those of `pages` that hold something else than what was sent last.
    pub(super) fn changed(&self, reader: &mut Reader, pages: &PageSet) -> Result<PageSet, Error> {
        let mut comparing = Comparing { copies: self, changed: PageSet::new() };
        let run = |run: Run| PageRun { address: run.address, pages: run.pages, zero: false };
        reader.read(0, pages.runs().map(run), While::Frozen, &mut comparing)?;
        Ok(comparing.changed)
    }
}

/// The pages of a record with their hashes.
fn hashes(address: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let pages = (address..).step_by(PAGE);
    pages.zip(bytes.chunks_exact(PAGE).map(xxh3_64))
}

fn hashes_of_zeros(address: u64, pages: u64) -> impl Iterator<Item = (u64, u64)> {
    let hash = xxh3_64(&[0; PAGE]);
    (address..address + pages * PAGE_BYTES).step_by(PAGE).map(move |page| (page, hash))
}

pub(super) struct Noting<'a> {
    copies: &'a mut Copies,
    sink: &'a mut dyn PageSink,
}

impl PageSink for Noting<'_> {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.sink.data(space, address, bytes)?;
        let Copies { of_files, sent } = &mut *self.copies;
        for run in of_files.within(address, (bytes.len() / PAGE) as u64) {
            let start = usize::try_from(run.address - address).unwrap_or(usize::MAX);
            let end = usize::try_from(run.end() - address).unwrap_or(usize::MAX);
            sent.extend(hashes(run.address, &bytes[start..end]));
        }
        Ok(())
    }

    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.sink.zero(space, address, pages)?;
        let Copies { of_files, sent } = &mut *self.copies;
        for run in of_files.within(address, pages) {
            sent.extend(hashes_of_zeros(run.address, run.pages));
        }
        Ok(())
    }

    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.sink.dropped(space, address, pages)
    }
}

struct Comparing<'a> {
    copies: &'a Copies,
    changed: PageSet,
}

impl Comparing<'_> {
    fn compare(&mut self, hashes: impl Iterator<Item = (u64, u64)>) {
        let is_new = |(page, hash): &(u64, u64)| self.copies.sent.get(page) != Some(hash);
        for (page, _) in hashes.filter(is_new) {
            self.changed.insert(page, 1);
        }
    }
}

impl PageSink for Comparing<'_> {
    fn data(&mut self, _space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.compare(hashes(address, bytes));
        Ok(())
    }

    fn zero(&mut self, _space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.compare(hashes_of_zeros(address, pages));
        Ok(())
    }

    fn dropped(&mut self, _space: u32, _address: u64, _pages: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Pages;
    use super::super::test_program::{Program, Replica};
    use super::*;

    #[test]
    fn only_what_differs_from_what_was_sent_has_changed() {
        let mut program = Program::start("steps");
        let file = program.step("file_write");
        let mut copies = Copies::default();
        copies.look(&program.mappings());
        let mut replica = Replica::default();
        let mut reader = Reader::new(program.pid, Pages::MayBeShared);
        let page = |number: u64| file + number * PAGE_BYTES;
        let both = PageRun { address: page(2), pages: 2, zero: false };
        reader.read(0, [both], While::Running, &mut copies.noting(&mut replica)).unwrap();

        let pages: PageSet = [Run { address: page(2), pages: 3 }].into_iter().collect();
        let changed = copies.changed(&mut reader, &pages).unwrap();
        let never_sent: PageSet = [Run { address: page(4), pages: 1 }].into_iter().collect();
        assert_eq!(changed, never_sent);

        program.step("file_drop");
        assert_eq!(copies.changed(&mut reader, &pages).unwrap(), pages, "the file shows again");
        copies.noting(&mut replica).zero(0, page(3), 1).unwrap();
        program.step("file_zero");
        let zeroed: PageSet = [Run { address: page(3), pages: 1 }].into_iter().collect();
        let mut others = pages.clone();
        others.remove_all(&zeroed);
        assert_eq!(copies.changed(&mut reader, &pages).unwrap(), others);
        copies.forget(&zeroed);
        assert_eq!(copies.changed(&mut reader, &pages).unwrap(), pages);
    }

    #[test]
    fn memory_of_no_file_is_not_remembered() {
        let program = Program::start("steps");
        let mut copies = Copies::default();
        copies.look(&program.mappings());
        let mut replica = Replica::default();
        let mut reader = Reader::new(program.pid, Pages::MayBeShared);
        let region = PageRun { address: program.address("region"), pages: 64, zero: false };
        reader.read(0, [region], While::Running, &mut copies.noting(&mut replica)).unwrap();
        assert!(copies.sent.is_empty() && replica.pages() == 64);
    }
}
