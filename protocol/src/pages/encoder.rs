//! Writes page records. The caller owns the buffer and empties it into the stream.

use super::{HEADER_BYTES, Header, Kind, Run, is_range, slices};
use crate::limits::{DATA_PAGES_MAX, PAGE_BYTES, SPACES_MAX};
use crate::message::RoundEnd;
use bytes::BytesMut;
use std::fmt;
use zstd::bulk::Compressor;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    Plain = 0,
    Zstd = 1,
}

/// What the records so far have carried; see the fields of the same name of [`RoundEnd`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub pages: u64,
    pub zero_pages: u64,
    pub dropped_pages: u64,
    pub stale_pages: u64,
    pub bytes_raw: u64,
    pub bytes_wire: u64,
}

/// One per stream. The compressor's context is kept: making one costs more than a block.
pub struct Encoder {
    compressor: Option<Compressor<'static>>,
    tally: Tally,
}

/// Level 1 is where a core compresses about as fast as a 10 Gbit/s link sends.
const LEVEL: i32 = 1;

/// Below this gain, decompressing costs the other side more than the bytes cost the link.
const GAIN_MIN: usize = 16;

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = if self.compressor.is_some() { Codec::Zstd } else { Codec::Plain };
        f.debug_struct("Encoder").field("codec", &codec).field("tally", &self.tally).finish()
    }
}

impl Encoder {
    /// With `Codec::Zstd`, blocks that hardly shrink still travel plain. The error is zstd's,
    /// when it has no memory for its context.
    pub fn new(codec: Codec) -> std::io::Result<Self> {
        let compressor = match codec {
            Codec::Plain => None,
            Codec::Zstd => Some(Compressor::new(LEVEL)?),
        };
        Ok(Self { compressor, tally: Tally::default() })
    }

    /// Appends whole pages, at most 16 of them, that lie in one slice.
    pub fn data(&mut self, space: u32, address: u64, bytes: &[u8], out: &mut BytesMut) {
        let pages = page_count(bytes);
        assert!(is_one_run(space, address, pages), "{pages} pages at {address:#x} are one run");
        let start = out.len();
        out.resize(start + HEADER_BYTES, 0);
        let codec = self.block(bytes, out);
        #[expect(clippy::cast_possible_truncation, reason = "at most 64 KiB")]
        let encoded = (out.len() - start - HEADER_BYTES) as u32;
        let kind = Kind::Data as u8;
        let header = Header { kind, codec: codec as u8, space, address, pages, encoded };
        out[start..start + HEADER_BYTES].copy_from_slice(&header.write(bytes));
        self.tally.pages += u64::from(pages);
        self.tally.bytes_raw += bytes.len() as u64;
        self.tally.bytes_wire += (out.len() - start) as u64;
    }

    /// Appends the bytes of a block, compressed when that helps.
    fn block(&mut self, bytes: &[u8], out: &mut BytesMut) -> Codec {
        let start = out.len();
        if let Some(compressor) = &mut self.compressor {
            // Room only for what would be worth it: zstd gives up by itself when it runs out.
            out.resize(start + bytes.len() - bytes.len() / GAIN_MIN, 0);
            if let Ok(length) = compressor.compress_to_buffer(bytes, &mut out[start..]) {
                out.truncate(start + length);
                return Codec::Zstd;
            }
            out.truncate(start);
        }
        out.extend_from_slice(bytes);
        Codec::Plain
    }

    /// Appends a run of zero pages. Runs without bytes may have any length: they are cut at slices,
    /// and the caller has already cut them at those of other streams.
    pub fn zero(&mut self, space: u32, address: u64, pages: u64, out: &mut BytesMut) {
        self.tally.zero_pages += pages;
        self.runs(Kind::Zero, space, address, pages, out);
    }

    pub fn dropped(&mut self, space: u32, address: u64, pages: u64, out: &mut BytesMut) {
        self.tally.dropped_pages += pages;
        self.runs(Kind::Dropped, space, address, pages, out);
    }

    pub fn stale(&mut self, space: u32, address: u64, pages: u64, out: &mut BytesMut) {
        self.tally.stale_pages += pages;
        self.runs(Kind::Stale, space, address, pages, out);
    }

    fn runs(&mut self, kind: Kind, space: u32, address: u64, pages: u64, out: &mut BytesMut) {
        for Run { space, address, pages } in slices(space, address, pages) {
            assert!(is_one_run(space, address, pages), "{pages} pages at {address:#x} are one run");
            self.bare(
                Header { kind: kind as u8, codec: 0, space, address, pages, encoded: 0 },
                out,
            );
        }
    }

    /// Ends this stream's part of the round.
    pub fn end(&mut self, round: u32, out: &mut BytesMut) {
        let (kind, pages) = (Kind::End as u8, round);
        self.bare(Header { kind, codec: 0, space: 0, address: 0, pages, encoded: 0 }, out);
    }

    fn bare(&mut self, header: Header, out: &mut BytesMut) {
        out.extend_from_slice(&header.write(&[]));
        self.tally.bytes_wire += HEADER_BYTES as u64;
    }

    /// What was written since the last call, to be added up over the streams of a round.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}

fn page_count(bytes: &[u8]) -> u32 {
    let pages = bytes.len() / PAGE_BYTES;
    assert!(bytes.len().is_multiple_of(PAGE_BYTES), "memory travels in whole pages");
    assert!((1..=DATA_PAGES_MAX as usize).contains(&pages), "a record holds 1 to 16 pages");
    #[expect(clippy::cast_possible_truncation, reason = "at most 16")]
    return pages as u32;
}

/// Whether a decoder would take this run. That it does is the engine's part of the bargain.
fn is_one_run(space: u32, address: u64, pages: u32) -> bool {
    space < SPACES_MAX
        && is_range(address, pages)
        && slices(space, address, u64::from(pages)).count() == 1
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.zero_pages += other.zero_pages;
        self.dropped_pages += other.dropped_pages;
        self.stale_pages += other.stale_pages;
        self.bytes_raw += other.bytes_raw;
        self.bytes_wire += other.bytes_wire;
    }
}

impl Tally {
    pub fn round_end(self, round: u32) -> RoundEnd {
        RoundEnd {
            round,
            pages: self.pages,
            zero_pages: self.zero_pages,
            dropped_pages: self.dropped_pages,
            stale_pages: self.stale_pages,
            bytes_raw: self.bytes_raw,
            bytes_wire: self.bytes_wire,
        }
    }
}
