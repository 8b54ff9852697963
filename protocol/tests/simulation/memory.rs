//! The tree's memory, page by page: what it wrote, what was sent of it, what arrived.
//!
//! A page is a number that grows with every write. Whoever runs reads pages at random, and each
//! must have the number that was written last: not an older one, and not the zeros of a page that
//! has not come.

use crate::random::Random;
use bytes::Bytes;
use std::collections::VecDeque;

pub(crate) const PAGES: usize = 5;

/// What goes over a stream of pages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Record {
    Page { round: u32, page: usize, written: u32 },
    Stale { round: u32, page: usize },
    End { round: u32 },
    Pushed { page: usize, written: u32 },
}

/// Memory of the source.
#[derive(Debug)]
pub(crate) struct Original {
    written: [u32; PAGES],
    dirty: [bool; PAGES],
    /// The list of pages to be pushed, which only the agent that made it has.
    pub(crate) stale: Option<VecDeque<usize>>,
}

impl Original {
    pub(crate) fn new() -> Self {
        Self { written: [1; PAGES], dirty: [true; PAGES], stale: None }
    }

    pub(crate) fn write(&mut self, random: &mut Random) {
        let page = random.index(PAGES);
        self.written[page] += 1;
        self.dirty[page] = true;
    }

    pub(crate) fn read(&self, page: usize) -> u32 {
        self.written[page]
    }

    pub(crate) fn all(&self) -> [u32; PAGES] {
        self.written
    }

    pub(crate) fn round(&mut self, round: u32) -> Vec<Record> {
        let written = (0..PAGES).filter(|page| std::mem::take(&mut self.dirty[*page]));
        let pages = written.map(|page| Record::Page { round, page, written: self.written[page] });
        pages.chain([Record::End { round }]).collect()
    }

    /// What was written is to be forgotten there; it is sent later.
    pub(crate) fn withdraw(&mut self, round: u32) -> Vec<Record> {
        let written = (0..PAGES).filter(|page| self.dirty[*page]);
        let stale = written.map(|page| Record::Stale { round, page });
        stale.chain([Record::End { round }]).collect()
    }

    /// The last round: with `lazy`, some pages go at once and the others are only named.
    pub(crate) fn rest(&mut self, round: u32, lazy: bool, random: &mut Random) -> Vec<Record> {
        let mut stale = VecDeque::new();
        let mut records = Vec::new();
        for page in (0..PAGES).filter(|page| self.dirty[*page]) {
            if lazy && random.below(4) > 0 {
                stale.push_back(page);
                records.push(Record::Stale { round, page });
            } else {
                records.push(Record::Page { round, page, written: self.written[page] });
            }
        }
        self.stale = Some(stale);
        records.push(Record::End { round });
        records
    }
}

/// Memory of the destination.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    pages: [Option<u32>; PAGES],
    /// What the running tree must find.
    written: [u32; PAGES],
}

/// What came of touching a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Right,
    Waits(usize),
    Wrong { page: usize, read: u32, written: u32 },
}

impl Copy {
    pub(crate) fn store(&mut self, page: usize, written: u32) {
        self.pages[page] = Some(written);
    }

    /// What is there was written to since, or is the same.
    pub(crate) fn fill(&mut self, page: usize, written: u32) {
        self.pages[page].get_or_insert(written);
    }

    pub(crate) fn drop_page(&mut self, page: usize) {
        self.pages[page] = None;
    }

    /// From here on the tree finds what stood there when it was frozen.
    pub(crate) fn begins(&mut self, written: [u32; PAGES]) {
        self.written = written;
    }

    pub(crate) fn missing(&self) -> impl Iterator<Item = usize> {
        (0..PAGES).filter(|page| self.pages[*page].is_none())
    }

    pub(crate) fn reads_zeros_where_it_would_wait(&mut self) {
        self.pages.iter_mut().for_each(|page| _ = page.get_or_insert(0));
    }

    /// The tree reads a page, and may write it.
    pub(crate) fn touch(&mut self, random: &mut Random) -> Touch {
        let page = random.index(PAGES);
        let written = self.written[page];
        match self.pages[page] {
            None => Touch::Waits(page),
            Some(read) if read != written => Touch::Wrong { page, read, written },
            Some(_) => {
                let now = written + u32::from(random.below(3) == 0);
                (self.written[page], self.pages[page]) = (now, Some(now));
                Touch::Right
            }
        }
    }
}

/// A list of pages as it crosses the link.
pub(crate) fn packed(pages: impl Iterator<Item = usize>) -> Bytes {
    pages.map(|page| u8::try_from(page).unwrap_or(u8::MAX)).collect()
}

pub(crate) fn unpacked(bytes: &Bytes) -> VecDeque<usize> {
    bytes.iter().map(|byte| usize::from(*byte)).collect()
}
