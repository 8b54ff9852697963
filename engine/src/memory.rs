//! The memory of a process: what it looks like, how it is read, and how it is filled again.
//!
//! On the source, a [`mapping`] is looked at ([`backing`] says what it stands on) and described
//! for the destination ([`mapping_image`]). A [`tracker`] says which pages were written since it
//! was last asked; [`private`] keeps the account of what the destination still lacks, [`read`]
//! brings the bytes into a [`PageSink`]. What several processes share is carried by object
//! ([`shared`]).
//!
//! One thing cannot be seen: a device that writes into pinned pages without a page table, in the
//! middle of an O_DIRECT read(2) while a round passes. Such a read is over when the process
//! stands still, but its pages may carry no mark.

pub mod backing;
mod copies;
pub mod file_identity;
pub mod fill;
pub(crate) mod frames;
pub mod guards;
pub mod holder;
pub mod known;
pub mod lazy;
#[cfg(test)]
mod lazy_program;
pub mod mapping;
pub mod mapping_image;
pub mod page_set;
pub mod private;
pub mod read;
pub mod shared;
pub(crate) mod soft_dirty;
#[cfg(test)]
mod test_program;
pub mod tracker;
pub mod vm_flags;
pub(crate) mod write_protect;

pub use page_set::{PAGE_BYTES, PageSet, Run};

use std::io;

/// Bytes in one [`PageSink::data`] call at most.
pub const DATA_BYTES_MAX: usize = 64 * 1024;

/// Pages in a row that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    pub address: u64,
    pub pages: u64,
    /// Known to be zeros without reading them. Others may turn out to be zeros too.
    pub zero: bool,
}

impl From<PageRun> for Run {
    fn from(run: PageRun) -> Self {
        Self { address: run.address, pages: run.pages }
    }
}

/// Where pages go. A *space* is one numbering of pages: the memory of a process by address, or a
/// shared object by offset; the caller numbers the spaces.
pub trait PageSink {
    /// Whole pages in a row, [`DATA_BYTES_MAX`] at most.
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()>;

    /// Pages that read as zeros.
    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()>;

    /// Pages that were sent and hold nothing any more: what lies beneath (zeros, a file) shows.
    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()>;
}
