//! Write tracking by soft-dirty bits: `clear_refs` and bit 55 of pagemap.
//!
//! Asking and clearing are two system calls. A write between them would be cleared unseen, so the
//! process must stand still for both (Documentation/admin-guide/mm/soft-dirty.rst).
//!
//! Two traps. A new mapping shows *every* page as dirty until the next clearing, also those that
//! do not exist: only pages that are there count. And a page that was thrown away and then read
//! is the kernel's page of zeros, which is not dirty: it is told by its frame.

use super::known::Known;
use super::mapping::{Mapping, parse_smaps};
use super::tracker::{Collected, LastLook, Tracker};
use super::{PAGE_BYTES, PageRun, PageSet};
use crate::error::{Error, Object, OnObject as _};
use crate::sys::pagemap::{Entry, Pagemap};
use crate::sys::vm::Scratch;
use std::collections::HashSet;
use std::sync::OnceLock;
use std::{fs, io};

/// A reservation this large is worth asking smaps whether anything is in it: pagemap has a word
/// for every page, there or not, and some runtimes reserve terabytes.
const LARGE_BYTES: u64 = 4 << 30;

#[derive(Debug)]
pub(super) struct SoftDirty {
    pid: i32,
    zeros: ZeroFrames,
    /// Nothing was cleared yet, or clearing failed: everything there counts as dirty.
    is_first: bool,
    /// Reported with content and not dropped since.
    reported: PageSet,
}

impl SoftDirty {
    pub(super) fn new(pid: i32) -> Result<Self, Error> {
        let zeros = ZeroFrames::find().on("find the zero page of", || Object::Host)?;
        Ok(Self { pid, zeros, is_first: true, reported: PageSet::new() })
    }

    fn clear(&self) -> Result<(), Error> {
        let path = format!("/proc/{}/clear_refs", self.pid);
        fs::write(path, "4").on("clear the dirty marks of", || Object::Process { pid: self.pid })
    }

    /// Visits the private pages that are there.
    fn pages(&self, mappings: &[Mapping], visit: &mut dyn FnMut(u64, Entry)) -> Result<(), Error> {
        let object = || Object::Process { pid: self.pid };
        let pagemap = Pagemap::open(self.pid).on("open the pagemap of", object)?;
        let untouched = self.untouched(mappings)?;
        for mapping in mappings.iter().filter(|mapping| mapping.holds_private_pages()) {
            if untouched.contains(&mapping.start) {
                continue;
            }
            let mut there = |address, entry| {
                if is_private(entry) {
                    visit(address, entry);
                }
            };
            pagemap
                .entries(mapping.start, mapping.end, &mut there)
                .on("read the pagemap of", || mapping.object(self.pid))?;
        }
        Ok(())
    }

    fn untouched(&self, mappings: &[Mapping]) -> Result<HashSet<u64>, Error> {
        if !mappings.iter().any(|mapping| mapping.bytes() >= LARGE_BYTES) {
            return Ok(HashSet::new());
        }
        let text = fs::read(format!("/proc/{}/smaps", self.pid))
            .on("read the mappings of", || Object::Process { pid: self.pid })?;
        let entries = parse_smaps(&text).into_iter();
        Ok(entries.filter(|entry| entry.is_untouched).map(|entry| entry.start).collect())
    }

    fn judge(&self, address: u64, entry: Entry) -> Option<PageRun> {
        let zero = self.zeros.has(entry);
        let is_news =
            self.is_first || entry.is_soft_dirty() || (zero && self.reported.contains(address));
        is_news.then_some(PageRun { address, pages: 1, zero })
    }
}

impl SoftDirty {
    fn start_over(&mut self, written: &Joined) -> Result<Collected, Error> {
        self.is_first = true;
        self.clear()?;
        self.is_first = false;
        let mut collected = Collected::default();
        for &run in &written.0 {
            if run.zero {
                self.reported.remove(run.address, run.pages);
            } else {
                self.reported.insert(run.address, run.pages);
            }
            collected.add(run);
        }
        Ok(collected)
    }

    fn forget_all_but(&mut self, there: Joined, known: &Known<'_>) -> PageSet {
        let gone = known.outside(&there.0.into_iter().map(Into::into).collect());
        self.reported.remove_all(&gone);
        gone
    }
}

impl Tracker for SoftDirty {
    fn needs_standstill(&self) -> bool {
        true
    }

    fn doubts_copies(&self) -> bool {
        false
    }

    fn collect(
        &mut self,
        mappings: &[Mapping],
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<Collected, Error> {
        let mut joined = Joined::default();
        self.pages(mappings, &mut |address, entry| joined.extend(self.judge(address, entry)))?;
        let collected = self.start_over(&joined)?;
        joined.0.into_iter().for_each(visit);
        Ok(collected)
    }

    fn peek(&mut self, mappings: &[Mapping]) -> Result<u64, Error> {
        let mut pages = 0;
        self.pages(mappings, &mut |address, entry| {
            pages += self.judge(address, entry).map_or(0, |run| run.pages);
        })?;
        Ok(pages)
    }

    fn gone(&mut self, mappings: &[Mapping], known: &Known<'_>) -> Result<PageSet, Error> {
        let mut there = Joined::default();
        self.pages(mappings, &mut |address, _| there.extend([page(address)]))?;
        Ok(self.forget_all_but(there, known))
    }

    fn collect_frozen(
        &mut self,
        mappings: &[Mapping],
        known: &Known<'_>,
    ) -> Result<LastLook, Error> {
        let (mut there, mut written) = (Joined::default(), Joined::default());
        self.pages(mappings, &mut |address, entry| {
            there.extend([page(address)]);
            written.extend(self.judge(address, entry));
        })?;
        let collected = self.start_over(&written)?;
        let gone = self.forget_all_but(there, known);
        // A page that comes by a fault for writing is soft-dirty from its first moment.
        let in_doubt = PageSet::new();
        Ok(LastLook { collected, written: written.0, gone, in_doubt })
    }
}

fn page(address: u64) -> PageRun {
    PageRun { address, pages: 1, zero: false }
}

fn is_private(entry: Entry) -> bool {
    (entry.is_present() || entry.is_swapped()) && !entry.is_file()
}

/// Pages that come one by one, put together.
#[derive(Debug, Default)]
struct Joined(Vec<PageRun>);

impl Extend<PageRun> for Joined {
    fn extend<I: IntoIterator<Item = PageRun>>(&mut self, pages: I) {
        pages.into_iter().for_each(|page| self.push(page));
    }
}

impl Joined {
    fn push(&mut self, page: PageRun) {
        match self.0.last_mut() {
            Some(last) if last.zero == page.zero && end(last) == page.address => {
                last.pages += page.pages;
            }
            _ => self.0.push(page),
        }
    }
}

fn end(run: &PageRun) -> u64 {
    run.address + run.pages * PAGE_BYTES
}

/// The frames of zeros that the kernel maps where a page was read and never written.
#[derive(Debug)]
struct ZeroFrames {
    small: Option<u64>,
    /// First frame of the huge one, while our scratch memory keeps it from being freed.
    huge: Option<u64>,
    _held: Scratch,
}

const HUGE_BYTES: usize = 2 << 20;
const HUGE_FRAMES: u64 = HUGE_BYTES as u64 / PAGE_BYTES;

impl ZeroFrames {
    fn find() -> io::Result<Self> {
        let mut small = Scratch::new(4096)?;
        small.advise(libc::MADV_NOHUGEPAGE)?;
        let mut huge = Scratch::new(2 * HUGE_BYTES)?;
        // EINVAL: this kernel has no transparent huge pages, and then no huge zeros either.
        let has_huge = huge.advise(libc::MADV_HUGEPAGE).is_ok();
        let aligned = usize::try_from(huge.address()).map_err(io::Error::other)?;
        let offset = aligned.next_multiple_of(HUGE_BYTES) - aligned;
        let small = frame_after_reading(&small, 0)?;
        let first = if has_huge { frame_after_reading(&huge, offset)? } else { None };
        let huge_first =
            first.filter(|frame| Some(*frame) != small && frame.is_multiple_of(HUGE_FRAMES));
        Ok(Self { small, huge: huge_first, _held: huge })
    }

    fn has(&self, entry: Entry) -> bool {
        entry.frame().is_some_and(|frame| {
            let huge = self.huge.is_some_and(|first| (first..first + HUGE_FRAMES).contains(&frame));
            self.small == Some(frame) || huge
        })
    }
}

fn frame_after_reading(scratch: &Scratch, offset: usize) -> io::Result<Option<u64>> {
    scratch.read(offset);
    let address = scratch.address() + offset as u64;
    let mut frame = None;
    Pagemap::open(std::process::id().cast_signed())?.entries(
        address,
        address + PAGE_BYTES,
        &mut |_, entry| frame = entry.frame(),
    )?;
    Ok(frame)
}

/// Whether clearing our own marks clears them, and a write sets one again. Tried once: clearing
/// is of the whole process, and two threads at it would confuse each other.
pub(super) fn works() -> bool {
    tried_out().is_ok()
}

/// The same, and why not.
pub(crate) fn try_out() -> io::Result<()> {
    tried_out().as_ref().copied().map_err(|error| match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    })
}

fn tried_out() -> &'static io::Result<()> {
    static TRIED: OnceLock<io::Result<()>> = OnceLock::new();
    const NOTHING: &str = "writing 4 to clear_refs is accepted and has no effect";
    TRIED.get_or_init(|| match try_on_scratch()? {
        true => Ok(()),
        false => Err(io::Error::other(NOTHING)),
    })
}

fn try_on_scratch() -> io::Result<bool> {
    let mut scratch = Scratch::new(4096)?;
    let pagemap = Pagemap::open(std::process::id().cast_signed())?;
    let is_dirty = |scratch: &Scratch| {
        let mut dirty = false;
        pagemap
            .entries(scratch.address(), scratch.end(), &mut |_, entry| {
                dirty = entry.is_soft_dirty();
            })
            .map(|()| dirty)
    };
    scratch.write(0, 1);
    fs::write("/proc/self/clear_refs", "4")?;
    let cleared = !is_dirty(&scratch)?;
    scratch.write(0, 2);
    Ok(cleared && is_dirty(&scratch)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: u64 = 1 << 63;
    const DIRTY: u64 = 1 << 55;

    fn tracker(is_first: bool) -> SoftDirty {
        let mut tracker = SoftDirty::new(std::process::id().cast_signed()).unwrap();
        tracker.is_first = is_first;
        tracker
    }

    #[test]
    fn only_dirty_pages_are_news_after_the_first_time() {
        let clean = Entry(PRESENT | 0x10);
        assert!(tracker(true).judge(0x1000, clean).is_some());
        assert!(tracker(false).judge(0x1000, clean).is_none());
        assert!(tracker(false).judge(0x1000, Entry(PRESENT | DIRTY | 0x10)).is_some());
    }

    #[test]
    fn a_new_mapping_that_claims_to_be_dirty_has_only_the_pages_that_are_there() {
        assert!(!is_private(Entry(DIRTY)));
        assert!(is_private(Entry(DIRTY | 1 << 62)));
        assert!(!is_private(Entry(PRESENT | 1 << 61)), "page cache is not the process's own");
    }

    #[test]
    fn zeros_where_content_was_sent_are_news_though_nobody_wrote() {
        let mut tracker = tracker(false);
        let Some(frame) = tracker.zeros.small else {
            return crate::skipped::skip("page frames are hidden from us");
        };
        let zeros = Entry(PRESENT | frame);
        assert_eq!(tracker.judge(0x1000, zeros), None);
        tracker.reported.insert(0x1000, 1);
        assert_eq!(
            tracker.judge(0x1000, zeros),
            Some(PageRun { address: 0x1000, pages: 1, zero: true })
        );
    }

    #[test]
    fn pages_in_a_row_become_one_run() {
        let mut joined = Joined::default();
        for (address, zero) in [(0x1000, false), (0x2000, false), (0x3000, true), (0x5000, true)] {
            joined.push(PageRun { address, pages: 1, zero });
        }
        let pages: Vec<_> = joined.0.iter().map(|run| (run.address, run.pages, run.zero)).collect();
        assert_eq!(pages, [(0x1000, 2, false), (0x3000, 1, true), (0x5000, 1, true)]);
    }

    #[test]
    fn it_is_not_believed_where_clearing_does_nothing() {
        let works = works(); // first: it clears what we look at below
        let mut scratch = Scratch::new(4096).unwrap();
        scratch.write(0, 1);
        let mut compiled_in = false;
        let pagemap = Pagemap::open(std::process::id().cast_signed()).unwrap();
        pagemap
            .entries(scratch.address(), scratch.end(), &mut |_, entry| {
                compiled_in = entry.is_soft_dirty();
            })
            .unwrap();
        // A page written a moment ago is dirty on every kernel that keeps the bit.
        assert_eq!(works, compiled_in);
    }
}
