//! One address space in the lazy phase: what it still misses, and who waits in it.

use super::LazySpace;
use super::layout::{Layout, Piece};
use crate::memory::page_set::{PAGE_BYTES, PageSet, Run};
use crate::sys::uffd_missing::{MissingUffd, Placed};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Space {
    /// By which the holder knows it.
    pub(super) name: String,
    /// The number by which the source knows these pages; a forked child's are its parent's.
    pub(super) origin: u32,
    /// Not known for a child that was forked in the lazy phase.
    pub(super) pid: Option<i32>,
    pub(super) uffd: Arc<MissingUffd>,
    pub(super) layout: Layout,
    /// By origin, like everything that the source is asked for.
    pub(super) missing: PageSet,
    /// By origin: a child gets zeros here (MADV_WIPEONFORK).
    pub(super) wiped_on_fork: PageSet,
    /// Where a thread is blocked, since when.
    pub(super) waiting: BTreeMap<u64, Instant>,
    /// Faults that could not be answered while the layout was changing.
    pub(super) deferred: Vec<u64>,
    /// Ranges to which the program moved something; see `Space::is_still_mapped`.
    pub(super) moved_in: PageSet,
    /// Unmaps that may be older than a move to the same place.
    pub(super) doubtful_unmaps: Vec<(u64, u64)>,
    /// Nothing is missing and nothing is registered any more; only events are still read.
    pub(super) retired: bool,
}

/// What is delivered for a piece.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    Zeros,
}

/// Pages that got their content, and those for which nobody has a place any more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) placed: u64,
    pub(super) discarded: u64,
}

/// Whether everything was dealt with, or the layout is changing and one has to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Settled,
    Changing,
}

impl Space {
    /// `ranges` are registered; everything lies where it lay at the source.
    pub(super) fn new(lazy: LazySpace, uffd: MissingUffd) -> Self {
        let layout = Layout::unmoved(&lazy.ranges);
        Self {
            pid: Some(lazy.pid),
            wiped_on_fork: lazy.wiped_on_fork,
            ..Self::bare(name_of(lazy.space), lazy.space, uffd, layout, lazy.missing)
        }
    }

    fn bare(
        name: String,
        origin: u32,
        uffd: MissingUffd,
        layout: Layout,
        missing: PageSet,
    ) -> Self {
        Self {
            name,
            origin,
            pid: None,
            uffd: Arc::new(uffd),
            layout,
            missing,
            wiped_on_fork: PageSet::new(),
            waiting: BTreeMap::new(),
            deferred: Vec::new(),
            moved_in: PageSet::new(),
            doubtful_unmaps: Vec::new(),
            retired: false,
        }
    }

    /// A child shares with its parent what is there, and misses what its parent misses.
    pub(super) fn fork(&self, name: String, uffd: MissingUffd) -> Self {
        let missing = self.missing.difference(&self.wiped_on_fork);
        Self {
            wiped_on_fork: self.wiped_on_fork.clone(),
            moved_in: self.moved_in.clone(),
            ..Self::bare(name, self.origin, uffd, self.layout.clone(), missing)
        }
    }

    /// Whoever waits looks again: a fault that a dead agent had read is delivered once more.
    pub(super) fn wake_all(&self) -> io::Result<()> {
        self.layout.pieces().try_for_each(|piece| self.uffd.wake(piece.local, piece.bytes))
    }

    /// The page of the source that belongs here and has not come yet.
    pub(super) fn missing_at(&self, local: u64) -> Option<u64> {
        self.layout.origin_of(local).filter(|origin| self.missing.contains(*origin))
    }

    /// The missing parts of a run of the source, each where it lies now.
    pub(super) fn missing_pieces(&self, origin: Run) -> Vec<Piece> {
        let runs: Vec<Run> = self.missing.within(origin.address, origin.pages).collect();
        runs.into_iter().flat_map(|run| self.layout.places_of(run)).collect()
    }

    /// Puts one missing piece into place, as far as it goes. The kernel takes a range only when it
    /// lies in one mapping, so one that was split since is tried in halves; a single page without
    /// a mapping is one that the program gave up.
    pub(super) fn place(
        &mut self,
        piece: Piece,
        content: Content<'_>,
        tally: &mut Tally,
    ) -> io::Result<Progress> {
        let (mut at, mut step) = (0, piece.bytes);
        while at < piece.bytes {
            step = step.min(piece.bytes - at);
            let (bytes, result) = self.try_place(piece.local + at, content, at, step)?;
            let done = match result {
                Placed::All => bytes,
                Placed::Part(bytes) => bytes as u64,
                Placed::NoMapping if bytes > PAGE_BYTES => {
                    step = (bytes / 2).next_multiple_of(PAGE_BYTES);
                    continue;
                }
                Placed::NoMapping | Placed::Exists => {
                    self.uffd.wake(piece.local + at, PAGE_BYTES)?;
                    tally.discarded += 1;
                    self.settle(piece, at, PAGE_BYTES);
                    at += PAGE_BYTES;
                    continue;
                }
                Placed::Changing => return Ok(Progress::Changing),
                Placed::Gone => {
                    tally.discarded += (piece.bytes - at) / PAGE_BYTES;
                    self.end();
                    return Ok(Progress::Settled);
                }
            };
            tally.placed += done / PAGE_BYTES;
            self.settle(piece, at, done);
            at += done;
            step = piece.bytes;
        }
        Ok(Progress::Settled)
    }

    fn try_place(
        &self,
        local: u64,
        content: Content<'_>,
        at: u64,
        step: u64,
    ) -> io::Result<(u64, Placed)> {
        match content {
            Content::Bytes(bytes) => {
                let range = index(at)..index(at + step);
                self.uffd.copy(local, &bytes[range]).map(|placed| (step, placed))
            }
            // UFFDIO_ZEROPAGE does not say how far it came, so it is asked for one page at a time.
            Content::Zeros => self.uffd.zero_page(local).map(|placed| (PAGE_BYTES, placed)),
        }
    }

    fn settle(&mut self, piece: Piece, at: u64, bytes: u64) {
        self.missing.remove(piece.origin + at, bytes / PAGE_BYTES);
    }

    /// Answers an access to a page that the source never had, or that the program dropped.
    pub(super) fn place_zero(&mut self, local: u64) -> io::Result<Progress> {
        match self.uffd.zero_page(local)? {
            Placed::All | Placed::Part(_) => {}
            // Whoever waits looks again: at the page that is there, or into its segfault.
            Placed::Exists | Placed::NoMapping => self.uffd.wake(local, PAGE_BYTES)?,
            Placed::Changing => return Ok(Progress::Changing),
            Placed::Gone => self.end(),
        }
        Ok(Progress::Settled)
    }

    /// Zeros from now on, wherever somebody waits in the range: MADV_DONTNEED.
    pub(super) fn remove(&mut self, start: u64, end: u64) -> Vec<Run> {
        let pieces = self.layout.overlapping(start, end);
        self.retry_waiting(start, end);
        self.give_up(pieces.iter().filter_map(|piece| piece.cut(start, end)))
    }

    pub(super) fn unmap(&mut self, start: u64, end: u64) -> Vec<Run> {
        self.moved_in.remove(start, (end - start) / PAGE_BYTES);
        self.retry_waiting(start, end);
        let pieces = self.layout.unmap(start, end);
        self.give_up(pieces.into_iter())
    }

    pub(super) fn remap(&mut self, from: u64, to: u64, bytes: u64) -> Vec<Run> {
        self.retry_waiting(from, from + bytes);
        self.retry_waiting(to, to + bytes);
        self.moved_in.remove(from, bytes / PAGE_BYTES);
        self.moved_in.insert(to, bytes / PAGE_BYTES);
        let replaced = self.layout.remap(from, to, bytes);
        self.give_up(replaced.into_iter())
    }

    /// A thread that waited for a page which now is another one, or none, has to look again.
    fn retry_waiting(&mut self, start: u64, end: u64) {
        let affected: Vec<u64> = self.waiting.range(start..end).map(|(at, _)| *at).collect();
        self.waiting.retain(|at, _| !(start..end).contains(at));
        self.deferred.extend(affected);
    }

    /// What was still missing of the pieces: nobody needs to send it any more.
    fn give_up(&mut self, pieces: impl Iterator<Item = Piece>) -> Vec<Run> {
        let mut dropped = Vec::new();
        for run in pieces.map(|piece| piece.origin_run()) {
            dropped.extend(self.missing.within(run.address, run.pages));
            self.missing.remove(run.address, run.pages);
        }
        dropped
    }

    /// Whether something that was moved to this range still lies there.
    ///
    /// The event of an unmap is queued after the mapping is gone. In between, another thread can
    /// move something to the same addresses, and *its* event can be queued first: read in that
    /// order, the unmap would make us forget pages that are very much there, and they would read
    /// as zeros. So an unmap of a place to which something was moved is checked against the
    /// kernel: new mappings are never registered, so what is registered was moved in.
    pub(super) fn is_still_mapped(&self, start: u64, end: u64) -> io::Result<Placed> {
        let moved = self.moved_in.within(start, (end - start) / PAGE_BYTES).next();
        moved.map_or(Ok(Placed::NoMapping), |run| self.uffd.probe(run.address))
    }

    /// The address space is gone, and with it everybody who could miss anything.
    pub(super) fn end(&mut self) {
        self.missing = PageSet::new();
        self.waiting.clear();
        self.deferred.clear();
        self.doubtful_unmaps.clear();
        self.retired = true;
    }
}

/// What the holder knows a space of the source by.
pub(super) fn name_of(space: u32) -> String {
    format!("space {space}")
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a block is small")
}
