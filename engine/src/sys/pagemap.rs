//! `/proc/PID/pagemap`: which pages are there, and which were written.
//!
//! Two ways to ask: the array of one word a page (every kernel), and the PAGEMAP_SCAN ioctl
//! (Linux 6.7), which skips what is not there and answers in ranges.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

const PAGE_BYTES: u64 = 4096;

/// Regions that one ioctl returns at most; the loop goes on where it stopped.
const REGIONS_MAX: usize = 4096;

/// What a page can be, as PAGEMAP_SCAN says it (linux/fs.h, `PAGE_IS_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Categories(pub(crate) u64);

impl Categories {
    pub(crate) const NONE: Self = Self(0);
    /// In a mapping that an asynchronous userfaultfd tracks.
    pub(crate) const TRACKED: Self = Self(1 << 0);
    pub(crate) const WRITTEN: Self = Self(1 << 1);
    /// Page cache, not a private copy.
    pub(crate) const FILE: Self = Self(1 << 2);
    pub(crate) const PRESENT: Self = Self(1 << 3);
    pub(crate) const SWAPPED: Self = Self(1 << 4);
    /// The kernel's one page of zeros.
    pub(crate) const ZERO_FRAME: Self = Self(1 << 5);
    /// Linux 6.15; before, asking for it is EINVAL.
    pub(crate) const GUARD: Self = Self(1 << 8);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A page is reported when it has everything in `all`, nothing in `none`, and, when `any` is not
/// empty, something of `any`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) all: Categories,
    pub(crate) none: Categories,
    pub(crate) any: Categories,
    /// Categories that are told apart in the answer.
    pub(crate) tell: Categories,
    /// Write-protect what is reported, in the same instant.
    pub(crate) protect: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    categories: u64,
}

impl Region {
    pub(crate) fn pages(&self) -> u64 {
        (self.end - self.start) / PAGE_BYTES
    }

    pub(crate) fn has(&self, categories: Categories) -> bool {
        Categories(self.categories).has(categories)
    }
}

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1 << 0;

/// One word of the array (Documentation/admin-guide/mm/pagemap.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    pub(crate) fn is_soft_dirty(self) -> bool {
        self.0 >> 55 & 1 == 1
    }

    /// Mapped by this process and by no other (Linux 4.2).
    pub(crate) fn is_exclusive(self) -> bool {
        self.0 >> 56 & 1 == 1
    }

    pub(crate) fn is_file(self) -> bool {
        self.0 >> 61 & 1 == 1
    }

    pub(crate) fn is_swapped(self) -> bool {
        self.0 >> 62 & 1 == 1
    }

    pub(crate) fn is_present(self) -> bool {
        self.0 >> 63 & 1 == 1
    }

    /// The page frame; 0 to a reader without CAP_SYS_ADMIN.
    pub(crate) fn frame(self) -> Option<u64> {
        let frame = self.0 & ((1 << 55) - 1);
        (self.is_present() && frame != 0).then_some(frame)
    }
}

/// Bound to the memory that the process had when it was opened: after an execve(2) it describes
/// memory that is gone, and says "nothing there" instead of failing. So open it for every look.
#[derive(Debug)]
pub(crate) struct Pagemap {
    file: File,
    /// Room for the answers of a scan, kept because a scan of little is a matter of microseconds.
    regions: Vec<Region>,
}

impl Pagemap {
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(|file| Self { file, regions: Vec::new() })
    }

    /// Visits every matching range in order. Ranges may be cut anywhere, and one range may span
    /// neighbouring mappings.
    pub(crate) fn scan(&mut self, query: &Query, visit: &mut dyn FnMut(Region)) -> io::Result<()> {
        self.regions.resize(REGIONS_MAX, Region::default());
        let mut start = query.start;
        while start < query.end {
            let (count, walked) = self.scan_once(query, start)?;
            self.regions[..count].iter().copied().for_each(&mut *visit);
            if walked <= start {
                return Err(io::Error::other("PAGEMAP_SCAN made no progress"));
            }
            start = walked;
        }
        Ok(())
    }

    fn scan_once(&mut self, query: &Query, start: u64) -> io::Result<(usize, u64)> {
        let into = &mut self.regions;
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: if query.protect { PM_SCAN_WP_MATCHING } else { 0 },
            start,
            end: query.end,
            vec: into.as_mut_ptr() as u64,
            vec_len: into.len() as u64,
            category_inverted: query.none.0,
            category_mask: query.all.and(query.none).0,
            category_anyof_mask: query.any.0,
            return_mask: query.tell.0,
            ..ScanArg::default()
        };
        // SAFETY: `arg` is the structure this ioctl reads and writes, its `size` says so, and
        // `vec` points to `vec_len` regions that live until the call returns.
        let count = unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        match usize::try_from(count) {
            Ok(count) => Ok((count, arg.walk_end)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Visits the word of every page, there or not.
    pub(crate) fn entries(
        &self,
        start: u64,
        end: u64,
        visit: &mut dyn FnMut(u64, Entry),
    ) -> io::Result<()> {
        let longest = usize::try_from((end - start) / PAGE_BYTES * 8).unwrap_or(usize::MAX);
        let mut words = vec![0; longest.min(512 * 1024)];
        let mut address = start;
        while address < end {
            let wanted = ((end - address) / PAGE_BYTES * 8).min(words.len() as u64);
            let wanted = usize::try_from(wanted).expect("no longer than the buffer");
            let count = self.file.read_at(&mut words[..wanted], address / PAGE_BYTES * 8)?;
            if count < 8 {
                return Ok(()); // past the end of the address space, or the process is gone
            }
            for word in words[..count].as_chunks::<8>().0 {
                visit(address, Entry(u64::from_ne_bytes(*word)));
                address += PAGE_BYTES;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ioctl_number_carries_the_size_of_its_argument() {
        assert_eq!(PAGEMAP_SCAN >> 16 & 0x3fff, size_of::<ScanArg>() as u64);
    }

    #[test]
    fn a_word_is_read_as_the_kernel_documents_it() {
        let written = Entry(1 << 63 | 1 << 55 | 0x1234);
        assert!(written.is_present() && written.is_soft_dirty());
        assert!(!written.is_swapped() && !written.is_file());
        assert_eq!(written.frame(), Some(0x1234));

        let swapped = Entry(1 << 62 | 0x77);
        assert!(swapped.is_swapped() && !swapped.is_present());
        assert_eq!(swapped.frame(), None, "these bits name a swap slot");
        assert!(Entry(1 << 61).is_file());
        assert!(Entry(1 << 56).is_exclusive() && !written.is_exclusive());
    }
}
