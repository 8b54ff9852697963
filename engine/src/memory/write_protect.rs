//! Write tracking by asynchronous write protection: userfaultfd and PAGEMAP_SCAN (Linux 6.7).
//!
//! A registered mapping's page has a mark in its page table entry; a write drops it. PAGEMAP_SCAN
//! returns the pages without the mark and marks them again in the same instant, while the process
//! runs. The rules that make it complete:
//!
//! - Nothing that is new is marked: a new mapping, what `brk` added and what `mremap` moved come
//!   unregistered, and a scan passes over them without a word. So each round first asks for pages
//!   that are there and *not* in a registered mapping, and registers what they lie in.
//! - Never PM_SCAN_CHECK_WPASYNC: over several mappings it fails at the first unregistered one,
//!   when the pages before it are marked already and will never be reported. The first rule is
//!   the check.
//! - A scan that marks asks for PRESENT or SWAPPED, always: otherwise a sparse mapping is filled
//!   with marks (33 MB of page tables for 16 GiB).
//! - Page cache is never marked: of a private mapping of a file only the written copies count.

mod gone;
mod suspects;

use self::gone::Gone;
use super::known::Known;
use super::mapping::{Mapping, between, mergeable};
use super::tracker::{Collected, LastLook, Tracker};
use super::{PageRun, PageSet, Run};
use crate::error::{Error, Object, OnObject as _};
use crate::sys::pagemap::{Categories, Pagemap, Query, Region};
use crate::sys::uffd;
use crate::sys::vm::Scratch;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// In memory or in swap. Without it every hole of a sparse mapping matches.
const THERE: Categories = Categories::PRESENT.and(Categories::SWAPPED);

/// The end of user space, four-level page tables. Mappings above it only exist by request.
const USER_END: u64 = (1 << 47) - super::PAGE_BYTES;

#[derive(Debug)]
pub(super) struct WriteProtect {
    pid: i32,
    userfaultfd: OwnedFd,
    /// All that was ever registered, also where it is unmapped by now.
    registered: PageSet,
    /// Of this round, what the kernel would not register: MAP_DROPPABLE, or somebody else's
    /// userfaultfd is on it. These pages count as written every time.
    untrackable: PageSet,
    /// The private mappings of files that could be written at the last look.
    writable: PageSet,
    /// Guard pages look like pages in swap and cannot be read. NONE where the kernel does not tell.
    guards: Categories,
    /// A scan failed half way: pages may be marked that were never reported.
    marks_are_lost: bool,
}

impl WriteProtect {
    pub(super) fn new(pid: i32, userfaultfd: OwnedFd) -> Result<Self, Error> {
        uffd::agree_on_asynchronous_protection(userfaultfd.as_fd())
            .on("track the writes of", || Object::Process { pid })?;
        Ok(Self {
            pid,
            userfaultfd,
            registered: PageSet::new(),
            untrackable: PageSet::new(),
            writable: PageSet::new(),
            guards: guards_if_known(),
            marks_are_lost: false,
        })
    }

    /// Opened for each round: after an execve(2) an old one describes memory that is gone.
    fn pagemap(&self) -> Result<Pagemap, Error> {
        Pagemap::open(self.pid).on("open the pagemap of", || self.object())
    }

    fn object(&self) -> Object {
        Object::Process { pid: self.pid }
    }

    /// Registers every mapping that has pages and is not registered. Returns how many pages are
    /// in no listed mapping.
    fn register_untracked(
        &mut self,
        pagemap: &mut Pagemap,
        mappings: &[Mapping],
    ) -> Result<u64, Error> {
        self.untrackable = PageSet::new();
        let untracked = self.untracked(pagemap, mappings)?;
        let mut unlisted_pages = 0;
        let mut done_to = 0;
        for region in untracked {
            let there = between(mappings, region.start, region.end);
            unlisted_pages += region.pages().saturating_sub(overlap_pages(there, &region));
            for mapping in there {
                if mapping.start >= done_to && mapping.holds_private_pages() {
                    let together = mergeable(mappings, mapping);
                    let tracked = self.tracked(pagemap, together)?;
                    let is_tracked =
                        |m: &Mapping| tracked.within(m.start, m.pages()).next().is_some();
                    for untracked in together.split(is_tracked) {
                        self.register(pagemap, untracked)?;
                    }
                    done_to = together.last().map_or(mapping.end, |last| last.end);
                }
            }
        }
        Ok(unlisted_pages)
    }

    fn untracked(&self, pagemap: &mut Pagemap, mappings: &[Mapping]) -> Result<Vec<Region>, Error> {
        let mut untracked = Vec::new();
        let none = Categories::TRACKED.and(self.not_ours());
        let query = Query { none, ..everything(mappings) };
        self.scan(pagemap, &query, &mut |region| untracked.push(region))?;
        Ok(untracked)
    }

    fn tracked(&self, pagemap: &mut Pagemap, mappings: &[Mapping]) -> Result<PageSet, Error> {
        let mut tracked = PageSet::new();
        let (Some(first), Some(last)) = (mappings.first(), mappings.last()) else {
            return Ok(tracked);
        };
        let query = Query { all: Categories::TRACKED, ..there(first.start, last.end) };
        self.scan(pagemap, &query, &mut |region| tracked.insert(region.start, region.pages()))?;
        Ok(tracked)
    }

    /// All of what mprotect(2) may have split, with pages or without: a part that is registered
    /// never becomes one with a part that is not, and mremap(2) of both would fail.
    fn register(&mut self, pagemap: &mut Pagemap, together: &[Mapping]) -> Result<(), Error> {
        let [first, .., last] = together else {
            return together.iter().try_for_each(|one| self.register_one(pagemap, one));
        };
        let range = Run::covering(first.start, last.end);
        if self.start_tracking(pagemap, range).is_ok() {
            self.registered.insert(range.address, range.pages);
            return Ok(());
        }
        together.iter().try_for_each(|one| self.register_one(pagemap, one))
    }

    fn register_one(&mut self, pagemap: &mut Pagemap, mapping: &Mapping) -> Result<(), Error> {
        let range = Run::covering(mapping.start, mapping.end);
        let result = self.start_tracking(pagemap, range);
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) => self.registered.insert(mapping.start, mapping.pages()),
            // EINVAL also says that it was unmapped in between: then nothing is there to report.
            Err((Some(libc::EINVAL | libc::EBUSY), _)) => {
                self.untrackable.insert(mapping.start, mapping.pages());
            }
            Err((_, error)) => {
                let error = self.explain(pagemap, mapping, error)?;
                return Err(error).on("track the writes to", || mapping.object(self.pid));
            }
        }
        Ok(())
    }

    /// Nothing in `range` is tracked, and still a page may have a mark, from before: when mremap(2)
    /// brings memory back to its neighbours, all become one mapping, and the kernel ends the
    /// registration of all, but takes off the marks of the moved part only. A write to a page of
    /// the others leaves its mark where it is, and so does the next one after registering. Ending
    /// a registration takes marks off.
    fn start_tracking(&self, pagemap: &mut Pagemap, range: Run) -> io::Result<()> {
        let userfaultfd = self.userfaultfd.as_fd();
        uffd::register(userfaultfd, range.address, range.end())?;
        let (all, none) = (Categories::TRACKED, Categories::WRITTEN);
        let marked = Query { all, none, ..there(range.address, range.end()) };
        let mut has_marks = false;
        pagemap.scan(&marked, &mut |_| has_marks = true)?;
        if has_marks {
            uffd::unregister(userfaultfd, range.address, range.end())?;
            uffd::register(userfaultfd, range.address, range.end())?;
        }
        Ok(())
    }

    /// The userfaultfd stays with the memory it was made in. When the process executes another
    /// program, registering fails (as "out of memory") and nothing of the new memory is tracked.
    fn explain(
        &self,
        pagemap: &mut Pagemap,
        mapping: &Mapping,
        error: io::Error,
    ) -> Result<io::Error, Error> {
        let nothing_was = self.registered.is_empty();
        if nothing_was && uffd::is_memory_gone(self.userfaultfd.as_fd(), mapping.start) {
            return Ok(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let mut is_tracked = nothing_was;
        let query = Query { all: Categories::TRACKED, ..everything(&[]) };
        self.scan(pagemap, &query, &mut |_| is_tracked = true)?;
        Ok(if is_tracked { error } else { io::Error::from_raw_os_error(libc::ESRCH) })
    }

    /// Page cache, and guards.
    fn not_ours(&self) -> Categories {
        Categories::FILE.and(self.guards)
    }

    fn scan(
        &self,
        pagemap: &mut Pagemap,
        query: &Query,
        visit: &mut dyn FnMut(Region),
    ) -> Result<(), Error> {
        pagemap.scan(query, visit).on("scan the pages of", || self.object())
    }

    fn suspects(&self, mappings: &[Mapping]) -> Result<Vec<Run>, Error> {
        let private = private(mappings);
        if self.marks_are_lost {
            return Ok(private.runs().collect());
        }
        suspects::find(self.pid, &private).on("scan the pages of", || self.object())
    }

    /// Visits what was written, and marks it again if so told.
    fn visit_written(
        &self,
        pagemap: &mut Pagemap,
        suspects: &[Run],
        protect: bool,
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<(), Error> {
        let (ranges, mark) = if self.marks_are_lost {
            (suspects.to_vec(), Categories::NONE)
        } else {
            let written = suspects::written(pagemap, suspects);
            (written.on("scan the pages of", || self.object())?, Categories::WRITTEN)
        };
        for range in ranges {
            let query = Query {
                all: Categories::TRACKED.and(mark),
                none: self.not_ours(),
                tell: Categories::ZERO_FRAME,
                protect,
                ..there(range.address, range.end())
            };
            self.scan(pagemap, &query, &mut |region| visit(run(region)))?;
        }
        Ok(())
    }

    fn collect_untrackable(
        &self,
        pagemap: &mut Pagemap,
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<(), Error> {
        for range in self.untrackable.runs() {
            let query = Query {
                none: self.not_ours().and(Categories::TRACKED),
                tell: Categories::ZERO_FRAME,
                ..there(range.address, range.end())
            };
            self.scan(pagemap, &query, &mut |region| visit(run(region)))?;
        }
        Ok(())
    }

    /// What a round finds, of which these are the suspects.
    fn look_closely(
        &mut self,
        pagemap: &mut Pagemap,
        suspects: &[Run],
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        self.visit_written(pagemap, suspects, true, &mut |run| {
            collected.add(run);
            visit(run);
        })?;
        let tracked_pages = collected.pages;
        self.collect_untrackable(pagemap, &mut |run| {
            collected.add(run);
            visit(run);
        })?;
        collected.untracked_pages = collected.pages - tracked_pages;
        Ok(collected)
    }

    /// Until the caller has what was found, its marks count as lost.
    fn account<T>(&mut self, look: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let found = look(self);
        self.marks_are_lost = found.is_err();
        found
    }
}

impl Tracker for WriteProtect {
    fn needs_standstill(&self) -> bool {
        false
    }

    fn doubts_copies(&self) -> bool {
        true
    }

    fn collect(
        &mut self,
        mappings: &[Mapping],
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<Collected, Error> {
        let mut pagemap = self.pagemap()?;
        let unlisted_pages = self.register_untracked(&mut pagemap, mappings)?;
        let suspects = self.suspects(mappings)?;
        let collected = self.account(|this| this.look_closely(&mut pagemap, &suspects, visit))?;
        let writable = |m: &&Mapping| m.is_private_file() && m.protection.write;
        self.writable = ranges(mappings.iter().filter(writable));
        Ok(Collected { unlisted_pages, ..collected })
    }

    fn peek(&mut self, mappings: &[Mapping]) -> Result<u64, Error> {
        let mut pagemap = self.pagemap()?;
        let mut pages = 0;
        let suspects = self.suspects(mappings)?;
        self.visit_written(&mut pagemap, &suspects, false, &mut |run| pages += run.pages)?;
        // The pages that the kernel keeps before the vdso look untracked once they were read.
        let private = private(mappings);
        for region in self.untracked(&mut pagemap, mappings)? {
            pages += private.within(region.start, region.pages()).map(|run| run.pages).sum::<u64>();
        }
        Ok(pages)
    }

    fn gone(&mut self, mappings: &[Mapping], known: &Known<'_>) -> Result<PageSet, Error> {
        let suspects = self.suspects(mappings)?;
        Ok(self.find_gone(&mut self.pagemap()?, mappings, known, &suspects)?.pages)
    }

    fn collect_frozen(
        &mut self,
        mappings: &[Mapping],
        known: &Known<'_>,
    ) -> Result<LastLook, Error> {
        let mut pagemap = self.pagemap()?;
        let unlisted_pages = self.register_untracked(&mut pagemap, mappings)?;
        let suspects = self.suspects(mappings)?;
        let Gone { pages: gone, in_doubt } =
            self.find_gone(&mut pagemap, mappings, known, &suspects)?;
        let mut written = Vec::new();
        let collected = self.account(|this| {
            this.look_closely(&mut pagemap, &suspects, &mut |run| written.push(run))
        })?;
        let collected = Collected { unlisted_pages, ..collected };
        Ok(LastLook { collected, written, gone, in_doubt })
    }
}

impl Drop for WriteProtect {
    /// Closing the last reference does the same. Doing it here too makes the process clean even
    /// when its own copy of the descriptor was never closed.
    fn drop(&mut self) {
        for run in self.registered.runs() {
            let _gone = uffd::unregister(self.userfaultfd.as_fd(), run.address, run.end());
        }
    }
}

/// What may be tracked of these.
fn private(mappings: &[Mapping]) -> PageSet {
    ranges(mappings.iter().filter(|mapping| mapping.holds_private_pages()))
}

fn ranges<'a>(mappings: impl Iterator<Item = &'a Mapping>) -> PageSet {
    mappings.map(|mapping| Run::covering(mapping.start, mapping.end)).collect()
}

fn guards_if_known() -> Categories {
    let query = Query { none: Categories::GUARD, ..there(0, super::PAGE_BYTES) };
    let known = Pagemap::open(std::process::id().cast_signed())
        .and_then(|mut pagemap| pagemap.scan(&query, &mut |_| {}));
    if known.is_ok() { Categories::GUARD } else { Categories::NONE }
}

fn overlap_pages(mappings: &[Mapping], region: &Region) -> u64 {
    let bytes = |m: &Mapping| m.end.min(region.end).saturating_sub(m.start.max(region.start));
    mappings.iter().map(bytes).sum::<u64>() / super::PAGE_BYTES
}

fn run(region: Region) -> PageRun {
    let zero = region.has(Categories::ZERO_FRAME);
    PageRun { address: region.start, pages: region.pages(), zero }
}

fn there(start: u64, end: u64) -> Query {
    let none = Categories::NONE;
    Query { start, end, all: none, none, any: THERE, tell: none, protect: false }
}

/// All of user space. [vsyscall] lies above it and is nobody's.
fn everything(mappings: &[Mapping]) -> Query {
    let listed = mappings.iter().map(|mapping| mapping.end).filter(|end| *end < 1 << 63).max();
    there(0, listed.unwrap_or(0).max(USER_END))
}

/// Whether a write to a marked page of our own is seen, and a page that was only read is not.
pub(super) fn works() -> bool {
    try_out().is_ok()
}

/// The same, and why not.
pub(crate) fn try_out() -> io::Result<()> {
    match try_on_scratch()? {
        [2, 0, 1] => Ok(()),
        counts => Err(io::Error::other(format!("{counts:?} pages are written, not [2, 0, 1]"))),
    }
}

fn try_on_scratch() -> io::Result<[u64; 3]> {
    let page = 4096;
    let mut scratch = Scratch::new(2 * page)?;
    scratch.write(0, 1);
    scratch.write(page, 1);
    let userfaultfd = uffd::create()?;
    uffd::agree_on_asynchronous_protection(userfaultfd.as_fd())?;
    uffd::register(userfaultfd.as_fd(), scratch.address(), scratch.end())?;
    let mut pagemap = Pagemap::open(std::process::id().cast_signed())?;
    let written = Query {
        all: Categories::TRACKED.and(Categories::WRITTEN),
        protect: true,
        ..there(scratch.address(), scratch.end())
    };
    let mut counts = [0; 3];
    pagemap.scan(&written, &mut |region| counts[0] += region.pages())?;
    pagemap.scan(&written, &mut |region| counts[1] += region.pages())?;
    scratch.write(0, 2);
    scratch.read(page);
    pagemap.scan(&written, &mut |region| counts[2] += region.pages())?;
    Ok(counts)
}
