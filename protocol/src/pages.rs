//! The data plane's record: a run of pages of one address space, with its bytes or without.
//!
//! ```text
//! 0  kind      u8      1 data, 2 zero, 3 dropped, 4 stale, 5 end
//! 1  codec     u8      0 plain, 1 zstd
//! 2            u16     zero
//! 4  space     u32     an address space or a shared object, numbered by the engine
//! 8  address   u64     of the first page; in a shared object, its offset
//! 16 pages     u32     of an end: the round that ends
//! 20 encoded   u32     bytes that follow the header
//! 24 checksum  u64     xxh3 of the raw bytes, seeded with xxh3 of the 24 bytes above
//! ```
//!
//! Little-endian, and a fixed layout rather than prost: this is the part where gigabytes pass. The
//! checksum is not a defence (the link has TLS for that): it finds our own mistakes before they
//! reach a program's memory, where nobody would ever find them.
//!
//! Each stream has its own slices of the address space, so that two versions of one page cannot
//! overtake each other. A stream ends its part of a round with an end record.

mod decoder;
mod encoder;

use crate::limits::{PAGE_BYTES, SLICE_PAGES};
use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub use decoder::{Decoder, PageError};
pub use encoder::{Codec, Encoder, Tally};

pub const HEADER_BYTES: usize = 32;

/// A record whose checksum was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Whole pages, at most [`crate::limits::DATA_PAGES_MAX`].
    Data {
        space: u32,
        address: u64,
        bytes: Bytes,
    },
    Zero(Run),
    /// The program gave these back: they read as a fresh mapping would.
    Dropped(Run),
    /// What the destination has of these, if anything, is old; the bytes come lazily.
    Stale(Run),
    /// The stream has nothing more in this round.
    End {
        round: u32,
    },
}

/// Neighbouring pages of one address space, in one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    pub space: u32,
    pub address: u64,
    pub pages: u32,
}

/// Addresses of programs and offsets in files both stay below this.
const ADDRESS_MAX: u64 = i64::MAX as u64;

const SLICE_BYTES: u64 = SLICE_PAGES as u64 * PAGE_BYTES as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Data = 1,
    Zero = 2,
    Dropped = 3,
    Stale = 4,
    End = 5,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u8,
    codec: u8,
    space: u32,
    address: u64,
    pages: u32,
    encoded: u32,
}

impl Header {
    fn write(&self, raw: &[u8]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind;
        bytes[1] = self.codec;
        bytes[4..8].copy_from_slice(&self.space.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.address.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.pages.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.encoded.to_le_bytes());
        let sum = checksum(&bytes, raw);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let address = u64::from_le_bytes(std::array::from_fn(|n| bytes[8 + n]));
        let [kind, codec, ..] = *bytes;
        Self { kind, codec, space: u32_at(4), address, pages: u32_at(16), encoded: u32_at(20) }
    }
}

/// Seeded with the header, so that intact bytes at a wrong address are found as well.
fn checksum(header: &[u8; HEADER_BYTES], raw: &[u8]) -> u64 {
    xxh3_64_with_seed(raw, xxh3_64(&header[..24]))
}

/// Whether these are whole pages at an address that exists.
pub(crate) fn is_range(address: u64, pages: u32) -> bool {
    let bytes = u64::from(pages) * PAGE_BYTES as u64;
    address.is_multiple_of(PAGE_BYTES as u64)
        && address.checked_add(bytes).is_some_and(|end| end <= ADDRESS_MAX)
}

/// The stream, of `streams`, that carries this page.
///
/// Slices go round: memory that is read in order keeps every stream equally busy, and a huge page
/// stays on one. Spaces start at different streams, so that many small processes do not meet on
/// the first.
pub fn slice_of(space: u32, address: u64, streams: u32) -> u32 {
    assert!(streams > 0, "pages travel on at least one stream");
    let turn = (address / SLICE_BYTES).wrapping_add(u64::from(space));
    #[expect(clippy::cast_possible_truncation, reason = "less than `streams`")]
    return (turn % u64::from(streams)) as u32;
}

/// The run of pages cut where slices end: each piece has one stream. `pages` may be any number.
pub fn slices(space: u32, address: u64, pages: u64) -> impl Iterator<Item = Run> {
    let (mut address, mut left) = (address, pages);
    std::iter::from_fn(move || {
        let to_boundary = (SLICE_BYTES - address % SLICE_BYTES) / PAGE_BYTES as u64;
        #[expect(clippy::cast_possible_truncation, reason = "a slice has 512 pages")]
        let pages = left.min(to_boundary) as u32;
        let run = Run { space, address, pages };
        left -= u64::from(pages);
        address = address.wrapping_add(u64::from(pages) * PAGE_BYTES as u64);
        (pages > 0).then_some(run)
    })
}

/// Whether every byte is zero. Compares page by page, at the speed of memcmp(3).
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    bytes.chunks(PAGE_BYTES).all(|page| page == &ZEROS[..page.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_stream_and_so_have_its_neighbours() {
        for streams in 1..=16 {
            let of = |page: u64| slice_of(3, page * 4096, streams);
            assert!((0..512).all(|page| of(page) == of(0)), "{streams}");
        }
    }

    #[test]
    fn memory_in_order_keeps_every_stream_busy() {
        let mut turns = [0; 4];
        (0..64).for_each(|slice| turns[slice_of(0, slice * SLICE_BYTES, 4) as usize] += 1);
        assert_eq!(turns, [16; 4]);
    }

    #[test]
    fn small_spaces_do_not_meet_on_one_stream() {
        let mut turns = [0; 4];
        (0..64).for_each(|space| turns[slice_of(space, 0x40_0000, 4) as usize] += 1);
        assert_eq!(turns, [16; 4]);
    }

    #[test]
    fn a_run_is_cut_where_slices_end_and_loses_nothing() {
        let runs: Vec<_> = slices(1, SLICE_BYTES - 8192, 1000).collect();
        assert_eq!(runs.iter().map(|run| run.pages).collect::<Vec<_>>(), [2, 512, 486]);
        assert_eq!(runs[1].address, SLICE_BYTES);
        assert!(runs.iter().all(|run| {
            let last = run.address + u64::from(run.pages - 1) * 4096;
            slice_of(1, run.address, 7) == slice_of(1, last, 7)
        }));
        assert_eq!(slices(1, 0x1000, 0).count(), 0);
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        let mut bytes = vec![0; 3 * PAGE_BYTES];
        assert!(is_zero(&bytes));
        for at in [0, 1, 4095, 4096, 8191, 3 * PAGE_BYTES - 1] {
            bytes[at] = 0x10;
            assert!(!is_zero(&bytes), "{at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn ranges_that_do_not_exist_are_told() {
        assert!(is_range(0x1000, 1));
        for (address, pages) in [(1, 1), (u64::MAX - 0xfff, 1), (ADDRESS_MAX & !0xfff, 1)] {
            assert!(!is_range(address, pages), "{address:#x}");
        }
    }
}
