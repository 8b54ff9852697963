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

use super::mapping::{Mapping, between};
use super::tracker::{Collected, Tracker};
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
                if mapping.start >= done_to {
                    self.register(pagemap, mapping)?;
                    done_to = mapping.end;
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

    fn register(&mut self, pagemap: &mut Pagemap, mapping: &Mapping) -> Result<(), Error> {
        if !mapping.holds_private_pages() {
            return Ok(());
        }
        let result = uffd::register(self.userfaultfd.as_fd(), mapping.start, mapping.end);
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) => self.registered.insert(mapping.start, mapping.pages()),
            // EINVAL also says that it was unmapped in between: then nothing is there to report.
            Err((Some(libc::EINVAL | libc::EBUSY), _)) => {
                self.untrackable.insert(mapping.start, mapping.pages());
            }
            Err((_, error)) => {
                let error = self.explain(pagemap, error)?;
                return Err(error).on("track the writes to", || mapping.object(self.pid));
            }
        }
        Ok(())
    }

    /// The userfaultfd stays with the memory it was made in. When the process executes another
    /// program, registering fails (as "out of memory") and nothing of the new memory is tracked.
    fn explain(&self, pagemap: &mut Pagemap, error: io::Error) -> Result<io::Error, Error> {
        let mut is_tracked = self.registered.is_empty();
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

    /// Where to look closer: every page that was written is in it.
    ///
    /// The kernel answers this one question without looking at the pages themselves, many times
    /// faster than any other. It may not protect, because holes are in the answer too.
    fn suspects(&self, pagemap: &mut Pagemap, mappings: &[Mapping]) -> Result<Vec<Run>, Error> {
        let private = mappings.iter().filter(|mapping| mapping.holds_private_pages());
        let private: PageSet =
            private.map(|mapping| Run::covering(mapping.start, mapping.end)).collect();
        if self.marks_are_lost {
            return Ok(private.runs().collect());
        }
        let mut suspects = Suspects::default();
        for run in private.runs() {
            let (all, tell) = (Categories::WRITTEN, Categories::WRITTEN);
            let query = Query { all, tell, any: Categories::NONE, ..there(run.address, run.end()) };
            self.scan(pagemap, &query, &mut |region| suspects.push(region))?;
        }
        Ok(suspects.0)
    }

    /// Visits what was written, and marks it again if so told.
    fn visit_written(
        &self,
        pagemap: &mut Pagemap,
        mappings: &[Mapping],
        protect: bool,
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<(), Error> {
        let written = if self.marks_are_lost { Categories::NONE } else { Categories::WRITTEN };
        for suspect in self.suspects(pagemap, mappings)? {
            let query = Query {
                all: Categories::TRACKED.and(written),
                none: self.not_ours(),
                tell: Categories::ZERO_FRAME,
                protect,
                ..there(suspect.address, suspect.end())
            };
            self.scan(pagemap, &query, &mut |region| visit(run(region)))?;
        }
        Ok(())
    }

    fn collect_written(
        &mut self,
        pagemap: &mut Pagemap,
        mappings: &[Mapping],
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<(), Error> {
        let result = self.visit_written(pagemap, mappings, true, visit);
        self.marks_are_lost = result.is_err();
        result
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

    /// Of `sent`, what is mapped and neither in memory nor in swap. Asking for what is *not* there
    /// gives a short answer, and this is done in the freeze.
    fn absent(&self, pagemap: &mut Pagemap, sent: &PageSet) -> Result<PageSet, Error> {
        let mut absent = PageSet::new();
        let (Some(first), Some(last)) = (sent.runs().next(), sent.runs().next_back()) else {
            return Ok(absent);
        };
        let any = Categories::NONE;
        let query = Query { none: THERE, any, ..there(first.address, last.end()) };
        self.scan(pagemap, &query, &mut |region| {
            absent.extend(sent.within(region.start, region.pages()));
        })?;
        Ok(absent)
    }

    /// Of a private mapping of a file, the pages that are the process's own.
    fn copies(&self, pagemap: &mut Pagemap, range: Run) -> Result<PageSet, Error> {
        self.settle_marks_without_page(pagemap, range)?;
        let mut copies = PageSet::new();
        let query = Query { none: self.not_ours(), ..there(range.address, range.end()) };
        self.scan(pagemap, &query, &mut |region| copies.insert(region.start, region.pages()))?;
        Ok(copies)
    }

    /// When a marked copy is thrown away, its mark stays and looks like a page in swap. Reading
    /// the page tells: what comes in is the file's page, or the copy that was in swap.
    fn settle_marks_without_page(&self, pagemap: &mut Pagemap, range: Run) -> Result<(), Error> {
        let mut swapped = PageSet::new();
        let query = Query { any: Categories::SWAPPED, ..there(range.address, range.end()) };
        self.scan(pagemap, &query, &mut |region| swapped.insert(region.start, region.pages()))?;
        super::read::touch(self.pid, &swapped)
    }
}

impl Tracker for WriteProtect {
    fn needs_standstill(&self) -> bool {
        false
    }

    fn collect(
        &mut self,
        mappings: &[Mapping],
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<Collected, Error> {
        let mut pagemap = self.pagemap()?;
        let unlisted_pages = self.register_untracked(&mut pagemap, mappings)?;
        let mut collected = Collected { unlisted_pages, ..Collected::default() };
        self.collect_written(&mut pagemap, mappings, &mut |run| {
            collected.add(run);
            visit(run);
        })?;
        let tracked_pages = collected.pages;
        self.collect_untrackable(&mut pagemap, &mut |run| {
            collected.add(run);
            visit(run);
        })?;
        collected.untracked_pages = collected.pages - tracked_pages;
        Ok(collected)
    }

    fn peek(&mut self, mappings: &[Mapping]) -> Result<u64, Error> {
        let mut pagemap = self.pagemap()?;
        let mut pages = 0;
        self.visit_written(&mut pagemap, mappings, false, &mut |run| pages += run.pages)?;
        let untracked = self.untracked(&mut pagemap, mappings)?;
        Ok(pages + untracked.iter().map(Region::pages).sum::<u64>())
    }

    fn dropped(&mut self, mappings: &[Mapping], sent: &PageSet) -> Result<PageSet, Error> {
        let mut pagemap = self.pagemap()?;
        let mut dropped = sent.clone(); // what is in no mapping stays in it
        for mapping in mappings.iter().filter(|mapping| mapping.holds_private_pages()) {
            dropped.remove(mapping.start, mapping.pages());
        }
        dropped.insert_all(&self.absent(&mut pagemap, sent)?);
        for mapping in mappings.iter().filter(|mapping| mapping.is_private_file()) {
            let Some(span) = span_within(sent, mapping) else { continue };
            let sent_of_it: PageSet = sent.within(span.address, span.pages).collect();
            dropped.insert_all(&sent_of_it.difference(&self.copies(&mut pagemap, span)?));
        }
        Ok(dropped)
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

/// Ranges by rising address, of which near ones are joined: a short range costs less to scan than
/// another system call.
#[derive(Debug, Default)]
struct Suspects(Vec<Run>);

const GAP_BYTES_MAX: u64 = 64 * super::PAGE_BYTES;

impl Suspects {
    fn push(&mut self, region: Region) {
        match self.0.last_mut() {
            // A running program's mappings change while they are scanned one after the other, so
            // a region may begin below the end of the one before.
            Some(last) if region.start.saturating_sub(last.end()) <= GAP_BYTES_MAX => {
                let start = last.address.min(region.start);
                *last = Run::covering(start, last.end().max(region.end));
            }
            _ => self.0.push(Run::covering(region.start, region.end)),
        }
    }
}

/// From the first to the last sent page of a mapping.
fn span_within(sent: &PageSet, mapping: &Mapping) -> Option<Run> {
    let mut runs = sent.within(mapping.start, mapping.pages()).filter(|run| run.pages > 0);
    let first = runs.next()?;
    let last = runs.last().unwrap_or(first);
    Some(Run::covering(first.address, last.end()))
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
    try_on_scratch().unwrap_or(false)
}

fn try_on_scratch() -> io::Result<bool> {
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
    Ok(counts == [2, 0, 1])
}
