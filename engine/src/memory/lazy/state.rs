//! All spaces of a tree in the lazy phase, and what is asked for.
//!
//! Events are read and pages are put into place under one lock, for a reason: between the check
//! that a page is still wanted and its copy, no event may be read. The program is let go on by
//! reading, and what it dropped then must not come back.

use super::ledger::{Change, name_of_child};
use super::space::{Content, Progress, Space, Tally};
use super::statistics::Statistics;
use crate::failure_point;
use crate::memory::holder::Holder;
use crate::memory::page_set::{PAGE_BYTES, PageSet, Run};
use crate::sys::uffd_missing::{Event, MissingUffd, Placed};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use userfaultfd::EventBuffer;

/// Pages asked for around one fault: an aligned block of 64 KiB.
const AROUND_PAGES: u64 = 16;
/// A program that walks through its memory gets windows that double up to this.
const AROUND_PAGES_MAX: u64 = 64;
const EVENTS_AT_ONCE: usize = 64;

/// What the source is told, after the lock is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Request { space: u32, run: Run },
    Unwanted { space: u32, run: Run },
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) spaces: Vec<Space>,
    /// Requests on their way, by the source's numbers, so that no page is asked for twice.
    asked: HashMap<u32, Asked>,
    pub(super) statistics: Statistics,
    pub(super) holder: Option<Arc<Holder>>,
    /// The source does not answer: nothing is asked, and who waits goes on waiting.
    pub(super) abandoned: bool,
}

#[derive(Debug, Default)]
struct Asked {
    pages: PageSet,
    /// Where the last window ended, and how long it was.
    end: u64,
    window: u64,
}

impl State {
    pub(super) fn new(spaces: Vec<Space>, holder: Option<Arc<Holder>>) -> Self {
        let statistics = Statistics::default();
        Self { spaces, asked: HashMap::new(), statistics, holder, abandoned: false }
    }

    pub(super) fn missing_pages(&self) -> u64 {
        self.spaces.iter().map(|space| space.missing.pages()).sum()
    }

    /// Pages of the source, in a run short enough that a fault can wait for it.
    pub(super) fn receive(
        &mut self,
        origin: u32,
        run: Run,
        content: Content<'_>,
    ) -> io::Result<Progress> {
        let mut tally = Tally::default();
        let mut progress = Progress::Settled;
        for space in self.spaces.iter_mut().filter(|space| space.origin == origin) {
            for piece in space.missing_pieces(run) {
                let part = part_of(content, piece.origin - run.address, piece.bytes);
                if space.place(piece, part, &mut tally)? == Progress::Changing {
                    progress = Progress::Changing;
                    break;
                }
            }
            // Whoever waits for such a page would wait for ever, so nobody may go on as if it came.
            if progress == Progress::Settled
                && let Some(run) = space.missing.within(run.address, run.pages).next()
            {
                let why = format!("the page at {:#x} is missing and has no place", run.address);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            if !space.waiting.is_empty() {
                note_waits(space, &mut self.statistics);
            }
        }
        self.count(origin, run, tally, progress);
        Ok(progress)
    }

    fn count(&mut self, origin: u32, run: Run, tally: Tally, progress: Progress) {
        let asked = self.asked.entry(origin).or_default();
        let by_fault = asked.pages.within(run.address, run.pages).next().is_some();
        let pages = if by_fault {
            &mut self.statistics.pages_by_fault
        } else {
            &mut self.statistics.pages_by_push
        };
        *pages += tally.placed;
        self.statistics.pages_discarded += tally.discarded;
        if progress == Progress::Settled {
            asked.pages.remove(run.address, run.pages);
            if tally.placed + tally.discarded == 0 {
                self.statistics.pages_discarded += run.pages;
            }
        }
    }

    /// Reads what a space has to say, and acts on it: all there is, or a good part of it. What is
    /// left is there when it is asked next.
    pub(super) fn read_events(&mut self, index: usize, said: &mut Vec<Said>) -> io::Result<()> {
        let Some(holder) = self.holder.clone() else {
            return self.read_some(index, EVENTS_AT_ONCE, said);
        };
        let uffd = Arc::clone(&self.spaces[index].uffd);
        let faults = uffd.pending_faults();
        if faults > 0 {
            self.read_some(index, faults.min(EVENTS_AT_ONCE), said)?;
        }
        if !uffd.has_events() {
            return Ok(());
        }
        // What comes now is news of the program: until it is passed on, nobody but us has it.
        let _alone = holder.alone()?;
        self.read_some(index, EVENTS_AT_ONCE, said)
    }

    fn read_some(&mut self, index: usize, count: usize, said: &mut Vec<Said>) -> io::Result<()> {
        let mut buffer = EventBuffer::new(count);
        let mut events = self.spaces[index].uffd.read(&mut buffer)?.into_iter();
        while let Some(event) = events.next() {
            if let Err(cause) = self.handle(index, event, said) {
                // A forked child's descriptor may be among them: closed, it would read zeros.
                std::mem::forget(events);
                self.nobody_knows();
                return Err(cause);
            }
        }
        Ok(())
    }

    fn nobody_knows(&self) {
        if let Some(holder) = &self.holder {
            holder.stay_alone();
        }
    }

    fn handle(&mut self, index: usize, event: Event, said: &mut Vec<Said>) -> io::Result<()> {
        let change = match event {
            Event::Fault { address } => return self.fault(index, address, said),
            Event::Fork { child } => {
                self.fork(index, child);
                return Ok(());
            }
            Event::Unmap { start, end } => {
                self.spaces[index].doubtful_unmaps.push((start, end));
                return self.settle_unmaps(index, said);
            }
            Event::Remove { start, end } => Change::Remove { start, end },
            Event::Remap { from, to, bytes } => Change::Remap { from, to, bytes },
        };
        self.change(index, change, said);
        Ok(())
    }

    /// The program changed its layout. A holder that is gone is no reason to stop serving.
    fn change(&mut self, index: usize, change: Change, said: &mut Vec<Said>) {
        let space = &mut self.spaces[index];
        if let Some(holder) = &self.holder
            && change.touches_missing(space)
            && let Err(error) = holder.note(&change.note(&space.name))
        {
            tracing::error!(%error, "a successor will not know what the program changed");
            holder.stay_alone();
        }
        let dropped = change.apply(space);
        self.tell_unwanted(index, dropped, said);
    }

    fn fault(&mut self, index: usize, address: u64, said: &mut Vec<Said>) -> io::Result<()> {
        let space = &mut self.spaces[index];
        if let Some(origin) = space.missing_at(address) {
            self.statistics.faults += 1;
            space.waiting.entry(address).or_insert_with(Instant::now);
            self.ask(index, origin, said);
            return Ok(());
        }
        match space.place_zero(address)? {
            Progress::Settled => self.statistics.zero_faults += 1,
            Progress::Changing => space.deferred.push(address),
        }
        Ok(())
    }

    fn ask(&mut self, index: usize, page: u64, said: &mut Vec<Said>) {
        let space = &self.spaces[index];
        let asked = self.asked.entry(space.origin).or_default();
        if self.abandoned || asked.pages.contains(page) {
            return;
        }
        let window = asked.window_around(page);
        let around = space.missing.within(window.address, window.pages);
        let new = around.flat_map(|run| asked.pages.missing_within(run.address, run.pages));
        let Some(run) = new.into_iter().find(|run| (run.address..run.end()).contains(&page)) else {
            return;
        };
        asked.pages.insert(run.address, run.pages);
        asked.end = run.end();
        said.push(Said::Request { space: space.origin, run });
    }

    /// The holder gets a child's descriptor before anything else happens: were we to die with the
    /// only one, the child would read zeros. A holder that is gone is no reason to stop serving.
    fn fork(&mut self, index: usize, child: MissingUffd) {
        self.statistics.forks += 1;
        // A test kills us here, or keeps us.
        let _ = failure_point::reach("destination.lazy-fork.before");
        let name = name_of_child(&self.spaces[index].name, self.statistics.forks);
        if let Some(holder) = &self.holder
            && let Err(error) = holder.hold(&name, &child)
        {
            tracing::error!(%error, "a forked child has no holder");
            holder.stay_alone();
        }
        let child = self.spaces[index].fork(name, child);
        self.spaces.push(child);
    }

    /// Unmaps whose place is known to be empty, or that nothing was ever moved to.
    fn settle_unmaps(&mut self, index: usize, said: &mut Vec<Said>) -> io::Result<()> {
        for (start, end) in std::mem::take(&mut self.spaces[index].doubtful_unmaps) {
            let space = &mut self.spaces[index];
            match space.is_still_mapped(start, end)? {
                Placed::Changing => space.doubtful_unmaps.push((start, end)),
                Placed::NoMapping => {
                    self.change(index, Change::Unmap { start, end }, said);
                }
                Placed::Gone => space.end(),
                // The move came after the unmap, and has already replaced what lay there.
                Placed::All | Placed::Part(_) | Placed::Exists => {}
            }
        }
        Ok(())
    }

    /// Tries again what could not be done while a layout was changing.
    pub(super) fn settle_deferred(&mut self, said: &mut Vec<Said>) -> io::Result<()> {
        for index in 0..self.spaces.len() {
            self.settle_unmaps(index, said)?;
            for address in std::mem::take(&mut self.spaces[index].deferred) {
                self.fault(index, address, said)?;
            }
        }
        Ok(())
    }

    pub(super) fn has_deferred(&self) -> bool {
        self.spaces.iter().any(|s| !s.deferred.is_empty() || !s.doubtful_unmaps.is_empty())
    }

    /// The source may leave these out, unless a relative still misses them.
    fn tell_unwanted(&self, index: usize, dropped: Vec<Run>, said: &mut Vec<Said>) {
        let space = self.spaces[index].origin;
        if self.spaces.iter().filter(|other| other.origin == space).count() == 1 {
            said.extend(dropped.into_iter().map(|run| Said::Unwanted { space, run }));
        }
    }

    /// The requests of a lost connection are made again: whoever waits, waits for them.
    pub(super) fn ask_again(&mut self, said: &mut Vec<Said>) {
        self.abandoned = false;
        self.asked.clear();
        for index in 0..self.spaces.len() {
            let space = &self.spaces[index];
            let waiting = space.waiting.keys().filter_map(|at| space.missing_at(*at));
            for page in waiting.collect::<Vec<_>>() {
                self.ask(index, page, said);
            }
        }
    }

    /// A space that misses nothing needs no faults: its fresh pages come from the kernel again.
    pub(super) fn retire_complete(&mut self) {
        let complete = self.spaces.iter_mut().filter(|space| !space.retired);
        for space in complete.filter(|space| space.missing.is_empty() && space.deferred.is_empty())
        {
            super::retire::unregister(space);
            space.retired = true;
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.has_deferred() && self.spaces.iter().all(|space| space.retired)
    }

    /// Closes every descriptor, here and in the holder: the kernel lets go of what may still be
    /// registered (a child's mapping that grew), and the last waiting event.
    pub(super) fn close(&mut self) {
        self.spaces.clear();
        if let Some(Err(error)) = self.holder.take().map(|holder| holder.release()) {
            tracing::warn!(%error, "the holder had ended before it was released");
        }
    }

    /// Ends the bookkeeping of spaces whose process ended without anybody noticing.
    pub(super) fn notice_ended(&mut self) -> io::Result<()> {
        for space in self.spaces.iter_mut().filter(|space| !space.retired) {
            if space.uffd.probe(0x1000_0000)? == Placed::Gone {
                space.end();
            }
        }
        Ok(())
    }
}

impl Asked {
    /// A fault right behind the last window goes on with one twice as long; any other gets the
    /// block that it lies in.
    fn window_around(&mut self, page: u64) -> Run {
        if page == self.end && self.window > 0 {
            self.window = (self.window * 2).min(AROUND_PAGES_MAX);
            return Run { address: page, pages: self.window };
        }
        self.window = AROUND_PAGES;
        let block = AROUND_PAGES * PAGE_BYTES;
        Run { address: page - page % block, pages: AROUND_PAGES }
    }
}

/// Who waited for a page that is there now has waited until now.
fn note_waits(space: &mut Space, statistics: &mut Statistics) {
    let (layout, missing) = (&space.layout, &space.missing);
    space.waiting.retain(|at, since| {
        let waits = layout.origin_of(*at).is_some_and(|origin| missing.contains(origin));
        if !waits {
            statistics.waits.add(since.elapsed());
        }
        waits
    });
}

fn part_of(content: Content<'_>, from: u64, bytes: u64) -> Content<'_> {
    match content {
        Content::Zeros => Content::Zeros,
        Content::Bytes(all) => {
            let start = usize::try_from(from).expect("within a block");
            let end = usize::try_from(from + bytes).expect("within a block");
            Content::Bytes(&all[start..end])
        }
    }
}
