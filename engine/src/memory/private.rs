//! The account of one process's private memory: what the destination has, and what it lacks.
//!
//! Every page is in one of four states: never there, *sent*, *stale* (there and not sent, or
//! written after it was sent) or gone after it was sent. A page that was collected stays stale
//! until it was really sent, so a round that fails half way loses nothing, and at the freeze the
//! stale pages are exactly the list that goes lazily.

use super::copies::Copies;
use super::known::Known;
use super::mapping::Mapping;
use super::read::{Pages, ReadPages, Reader, While};
use super::tracker::{Collected, LastLook, Tracker};
use super::{PageRun, PageSet, PageSink};
use crate::error::{Error, Object, OnObject as _};

#[derive(Debug)]
pub struct PrivateMemory {
    pid: i32,
    space: u32,
    tracker: Box<dyn Tracker>,
    reader: Reader,
    sent: PageSet,
    stale: PageSet,
    /// Of `stale`, those known to be zeros.
    zeros: PageSet,
    copies: Copies,
}

impl PrivateMemory {
    pub fn new(pid: i32, space: u32, tracker: Box<dyn Tracker>) -> Self {
        Self {
            pid,
            space,
            tracker,
            reader: Reader::new(pid, Pages::MayBeShared),
            sent: PageSet::new(),
            stale: PageSet::new(),
            zeros: PageSet::new(),
            copies: Copies::default(),
        }
    }

    /// See [`Pages`].
    pub fn expect(&mut self, pages: Pages) {
        self.reader.expect(pages);
    }

    /// See [`Tracker::needs_standstill`].
    pub fn needs_standstill(&self) -> bool {
        self.tracker.needs_standstill()
    }

    /// After an execve(2). What was sent of the old memory is known still, and dropped as such.
    pub fn replace_tracker(&mut self, tracker: Box<dyn Tracker>) {
        self.tracker = tracker;
    }

    /// The destination makes this memory again, empty, as another space: whatever was sent of it
    /// is lost there.
    pub fn begin_anew(&mut self, space: u32) {
        self.space = space;
        self.stale.insert_all(&self.sent);
        self.sent = PageSet::new();
        self.copies = Copies::default();
    }

    /// The destination made it as a fork of `parent`'s memory, with all that was sent of that. Of
    /// it, the `shared` pages are as they are here.
    pub fn inherit(&mut self, parent: Sent, shared: &PageSet) {
        (self.sent, self.copies) = (parent.pages, parent.copies);
        self.stale.remove_all(shared);
        self.zeros.remove_all(shared);
    }

    /// What a fork begins with.
    pub fn legacy(&self) -> Sent {
        Sent { pages: self.sent.clone(), copies: self.copies.clone() }
    }

    /// What the destination has, though some of it may be stale.
    pub fn sent(&self) -> &PageSet {
        &self.sent
    }

    /// What the destination lacks, as of the last `collect`.
    pub fn stale(&self) -> &PageSet {
        &self.stale
    }

    /// Adds to `stale` what was written since the last time.
    pub fn collect(&mut self, mappings: &[Mapping]) -> Result<Collected, Error> {
        self.look_at_copies(mappings);
        let Self { tracker, stale, zeros, .. } = self;
        tracker.collect(mappings, &mut |run| note(run, stale, zeros))
    }

    /// The last `collect`, of a process that stands still, with mappings that were read while it
    /// did. Afterwards the destination is complete when it has `stale` and has thrown away what
    /// was dropped.
    pub fn collect_frozen(
        &mut self,
        mappings: &[Mapping],
        sink: &mut dyn PageSink,
    ) -> Result<Collected, Error> {
        let known = Known { sent: &self.sent, stale: &self.stale };
        let LastLook { mut collected, written, gone, in_doubt } =
            self.tracker.collect_frozen(mappings, &known)?;
        self.look_at_copies(mappings);
        for run in written {
            note(run, &mut self.stale, &mut self.zeros);
        }
        self.drop(&gone, sink)?;
        collected.pages += self.settle(&in_doubt)?;
        if collected.unlisted_pages > 0 {
            let why = format!("{} pages are in no mapping", collected.unlisted_pages);
            return Err(Error::invalid("account for the memory of", self.object(), why));
        }
        Ok(collected)
    }

    fn look_at_copies(&mut self, mappings: &[Mapping]) {
        if self.tracker.doubts_copies() {
            self.copies.look(mappings);
        }
    }

    /// Adds to `stale` those that are not as they were sent. Returns how many.
    fn settle(&mut self, in_doubt: &PageSet) -> Result<u64, Error> {
        let in_doubt = in_doubt.difference(&self.stale);
        let changed = self.copies.changed(&mut self.reader, &in_doubt)?;
        self.stale.insert_all(&changed);
        Ok(changed.pages())
    }

    /// Pages that the last look will compare with what was sent: written copies of files' pages.
    pub fn compared_pages(&self) -> u64 {
        self.copies.sent_pages()
    }

    /// How many pages would have to be sent now: what `collect` would add, and what is left.
    pub fn peek(&mut self, mappings: &[Mapping]) -> Result<u64, Error> {
        Ok(self.tracker.peek(mappings)? + self.stale.pages())
    }

    /// Tells the destination what is gone. Between rounds it only saves memory there.
    pub fn drop_gone(
        &mut self,
        mappings: &[Mapping],
        sink: &mut dyn PageSink,
    ) -> Result<u64, Error> {
        let known = Known { sent: &self.sent, stale: &self.stale };
        let gone = self.tracker.gone(mappings, &known)?;
        self.drop(&gone, sink)
    }

    /// Tells the destination to forget what is stale. It stays stale.
    pub fn withdraw(&mut self, sink: &mut dyn PageSink) -> Result<u64, Error> {
        let sent_in_vain = self.stale.intersection(&self.sent);
        self.forget(&sent_in_vain, sink)?;
        Ok(sent_in_vain.pages())
    }

    fn drop(&mut self, gone: &PageSet, sink: &mut dyn PageSink) -> Result<u64, Error> {
        self.stale.remove_all(gone);
        self.zeros.remove_all(gone);
        let dropped = gone.intersection(&self.sent);
        self.forget(&dropped, sink)?;
        Ok(dropped.pages())
    }

    fn forget(&mut self, sent: &PageSet, sink: &mut dyn PageSink) -> Result<(), Error> {
        for run in sent.runs() {
            sink.dropped(self.space, run.address, run.pages)
                .on("send the dropped pages of", || self.object())?;
        }
        self.sent.remove_all(sent);
        self.copies.forget(sent);
        Ok(())
    }

    pub fn send_stale(
        &mut self,
        during: While,
        sink: &mut dyn PageSink,
    ) -> Result<ReadPages, Error> {
        let all = self.stale.clone();
        self.send(&all, during, sink)
    }

    /// Sends those of `pages` that are stale.
    pub fn send(
        &mut self,
        pages: &PageSet,
        during: While,
        sink: &mut dyn PageSink,
    ) -> Result<ReadPages, Error> {
        let wanted = pages.intersection(&self.stale);
        let runs = self.by_content(&wanted);
        let sink = &mut self.copies.noting(sink);
        let read = self.reader.read(self.space, runs, during, sink)?;
        self.stale.remove_all(&wanted);
        self.zeros.remove_all(&wanted);
        self.sent.insert_all(&wanted.difference(&read.vanished));
        Ok(read)
    }

    fn by_content(&self, wanted: &PageSet) -> Vec<PageRun> {
        let as_runs = |pages: &PageSet, zero| {
            let of =
                move |run: super::Run| PageRun { address: run.address, pages: run.pages, zero };
            pages.runs().map(of).collect::<Vec<_>>()
        };
        let zeros = wanted.intersection(&self.zeros);
        let mut runs = as_runs(&wanted.difference(&zeros), false);
        runs.extend(as_runs(&zeros, true));
        runs
    }

    fn object(&self) -> Object {
        Object::Process { pid: self.pid }
    }
}

/// What the destination has of a memory.
#[derive(Clone, Debug)]
pub struct Sent {
    pages: PageSet,
    copies: Copies,
}

fn note(run: PageRun, stale: &mut PageSet, zeros: &mut PageSet) {
    stale.insert(run.address, run.pages);
    if run.zero {
        zeros.insert(run.address, run.pages);
    } else {
        zeros.remove(run.address, run.pages);
    }
}

#[cfg(test)]
mod tests;
