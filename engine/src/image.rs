//! What is recorded of a tree: the model that travels, or is written to a directory.
//!
//! Process → Thread → Aspect; Descriptor → Description → Object; each by id. Everything here may
//! come from a hostile host or file: it is checked where it is used, never asserted.
//!
//! A directory is written by a [`Writer`], opened as a [`StoredImage`], and played back into a
//! [`Stage`](crate::stage::Stage) by a [`Playback`]: the same messages and the same pages as
//! between two hosts. `docs/image.md` describes its files.

mod buffer;
mod codec;
pub mod copied;
mod directory;
mod expansion;
mod file;
mod forks;
mod framed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod index;
pub(crate) mod keys;
pub mod manifest;
mod playback;
mod serving;
mod store;
mod stored;
mod writer;

pub use buffer::Buffer;
pub use directory::{FILES, sync_directory};
pub use framed::VERSION;
pub use keys::{Identities, Recipients};
pub use manifest::{Manifest, Tree};
pub use playback::{Fill, Playback};
pub use serving::{Served, Wanted};
pub use store::{Size, Store};
pub use stored::StoredImage;
pub use writer::{Manner, Writer};

use crate::aspects::{AspectImage, RseqImage};
use crate::clocks::Clocks;
use crate::descriptors::DescriptorsImage;
use crate::error::{Error, Object};
use crate::memory::mapping_image::{MappingImage, ObjectImage};
use crate::memory::{PAGE_BYTES, PageSet};
use crate::network::NamespaceImage;
use crate::sys::ptrace::{XSTATE_BYTES_MAX, registers_from_words, registers_to_words};
use crate::tracee::Registers;

/// [`PAGE_BYTES`], where it is bytes in memory that are counted.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// The shape of a tree: which processes, threads and mappings there are, without their contents.
/// Sent again with every round, because a running tree changes its shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Layout {
    /// Parents before their children; the first is the root.
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<ProcessLayout>,
    #[prost(message, repeated, tag = "2")]
    pub shared: Vec<ObjectImage>,
    /// The source's vdso, for a destination whose kernel has another one.
    #[prost(bytes = "vec", tag = "3")]
    pub vdso: Vec<u8>,
    /// Addresses of the source that move with the tree, as `ADDR/LEN[@DEV]`.
    #[prost(string, repeated, tag = "4")]
    pub addresses: Vec<String>,
    /// It had connections when it was first looked at: something will have to be kept silent.
    #[prost(bool, tag = "5")]
    pub has_connections: bool,
    /// The network namespace that it lives in, when that is its own.
    #[prost(message, optional, tag = "6")]
    pub network: Option<NamespaceImage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessLayout {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(int32, tag = "2")]
    pub ppid: i32,
    #[prost(int32, tag = "3")]
    pub pgid: i32,
    /// 0 when the session was founded outside of what the source can see.
    #[prost(int32, tag = "4")]
    pub sid: i32,
    #[prost(int32, tag = "5")]
    pub exit_signal: i32,
    #[prost(bool, tag = "6")]
    pub is_zombie: bool,
    /// The address space's number in page records; never used twice in a migration.
    #[prost(uint32, tag = "7")]
    pub space: u32,
    #[prost(int32, repeated, tag = "8")]
    pub tids: Vec<i32>,
    #[prost(message, repeated, tag = "9")]
    pub mappings: Vec<MappingImage>,
    /// One more than its highest descriptor; 0 when it has none.
    #[prost(uint32, tag = "10")]
    pub descriptors_end: u32,
    /// The space of its parent, when this space began as a fork of that one: with every page that
    /// had landed there, in the mappings that both have. 0 when it began empty.
    #[prost(uint32, tag = "11")]
    pub forked_from: u32,
}

/// Everything else, captured while the tree stands still.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TreeImage {
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<ProcessImage>,
    #[prost(message, optional, tag = "2")]
    pub descriptors: Option<DescriptorsImage>,
    /// The tree's clocks at the freeze: the destination's must not show less.
    #[prost(message, optional, tag = "3")]
    pub clocks: Option<Clocks>,
    /// Pages whose content comes later, by fault or push.
    #[prost(message, repeated, tag = "4")]
    pub missing: Vec<MissingPages>,
}

/// Runs of pages of one space: (first address, pages), alternating.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MissingPages {
    #[prost(uint32, tag = "1")]
    pub space: u32,
    #[prost(uint64, repeated, tag = "2")]
    pub runs: Vec<u64>,
}

impl MissingPages {
    /// As a set; an error when a run is no run of whole pages.
    pub fn pages(&self) -> Result<PageSet, Error> {
        let malformed = || {
            let part = format!("list of missing pages of space {}", self.space);
            Error::invalid("read the", Object::Image { part }, "a run is malformed")
        };
        let mut set = PageSet::new();
        for run in self.runs.chunks(2) {
            let &[address, pages] = run else { return Err(malformed()) };
            let end = pages.checked_mul(PAGE_BYTES).and_then(|bytes| bytes.checked_add(address));
            if address % PAGE_BYTES != 0 || end.is_none() {
                return Err(malformed());
            }
            set.insert(address, pages);
        }
        Ok(set)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessImage {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(bool, tag = "2")]
    pub is_zombie: bool,
    /// As wait(2) reports it, for a zombie.
    #[prost(int32, tag = "3")]
    pub exit_status: i32,
    /// Stopped by job control: it goes on being stopped.
    #[prost(bool, tag = "4")]
    pub is_stopped: bool,
    #[prost(message, optional, tag = "5")]
    pub memory: Option<MemoryFields>,
    #[prost(message, repeated, tag = "6")]
    pub threads: Vec<ThreadImage>,
    #[prost(message, repeated, tag = "7")]
    pub aspects: Vec<AspectImage>,
    /// The siginfo of every signal that waits for the process, oldest first.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub pending_signals: Vec<Vec<u8>>,
    /// What a zombie is called; a living thread's name is an aspect.
    #[prost(string, tag = "9")]
    pub zombie_name: String,
}

/// `struct prctl_mm_map` of prctl(2), and what goes with it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemoryFields {
    /// start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start,
    /// arg_end, env_start, env_end.
    #[prost(uint64, repeated, tag = "1")]
    pub bounds: Vec<u64>,
    #[prost(bytes = "vec", tag = "2")]
    pub auxv: Vec<u8>,
    #[prost(string, tag = "3")]
    pub executable: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ThreadImage {
    #[prost(int32, tag = "1")]
    pub tid: i32,
    /// `struct user_regs_struct` of x86-64, word by word.
    #[prost(uint64, repeated, tag = "2")]
    pub registers: Vec<u64>,
    /// The XSAVE area without the zeros at its end: with AMX it has 11 KiB, and few threads use
    /// the last eight.
    #[prost(bytes = "vec", tag = "3")]
    pub xstate: Vec<u8>,
    #[prost(uint32, tag = "8")]
    pub xstate_bytes: u32,
    #[prost(fixed64, tag = "4")]
    pub signal_mask: u64,
    #[prost(message, optional, tag = "5")]
    pub rseq: Option<RseqImage>,
    #[prost(message, repeated, tag = "6")]
    pub aspects: Vec<AspectImage>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub pending_signals: Vec<Vec<u8>>,
}

impl ThreadImage {
    pub(crate) fn words_of(registers: &Registers) -> Vec<u64> {
        registers_to_words(registers)
    }

    /// Splits an XSAVE area into what is sent of it and its whole length. It is eleven kilobytes
    /// and mostly zeros, of each of five hundred threads in a freeze: so by block, not by byte.
    pub(crate) fn trimmed(mut xstate: Vec<u8>) -> (Vec<u8>, u32) {
        let whole = u32::try_from(xstate.len()).expect("an XSAVE area is a few kilobytes");
        const ZEROS: [u8; 64] = [0; 64];
        let is_used = |block: &[u8]| *block != ZEROS[..block.len()];
        let blocks = xstate.chunks(ZEROS.len()).rposition(is_used).map_or(0, |last| last + 1);
        xstate.truncate(blocks * ZEROS.len());
        (xstate, whole)
    }

    pub(crate) fn whole_xstate(&self) -> Result<Vec<u8>, Error> {
        let whole = self.xstate_bytes as usize;
        if whole > XSTATE_BYTES_MAX || self.xstate.len() > whole {
            let part = format!("vector registers of thread {}", self.tid);
            return Err(Error::invalid("read the", Object::Image { part }, "their size is wrong"));
        }
        let mut xstate = self.xstate.clone();
        xstate.resize(whole, 0);
        Ok(xstate)
    }

    pub(crate) fn registers(&self) -> Result<Registers, Error> {
        registers_from_words(&self.registers).ok_or_else(|| {
            let part = format!("registers of thread {}", self.tid);
            Error::invalid("read the", Object::Image { part }, "their number is wrong")
        })
    }
}

impl Layout {
    pub fn process(&self, pid: i32) -> Option<&ProcessLayout> {
        self.processes.iter().find(|process| process.pid == pid)
    }

    /// All ids that the tree occupies.
    pub fn ids(&self) -> impl Iterator<Item = i32> {
        self.processes.iter().flat_map(|p| std::iter::once(p.pid).chain(p.tids.iter().copied()))
    }
}

/// Reads a message that came from outside.
pub fn decode<M: prost::Message + Default>(part: &str, bytes: &[u8]) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| {
        Error::invalid("read the", Object::Image { part: part.to_owned() }, error.to_string())
    })
}

#[cfg(test)]
mod tests;
