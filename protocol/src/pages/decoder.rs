//! Reads page records, and trusts nothing in them.
//!
//! The bytes of a record are handed on as they came from the network when they came in one piece;
//! else they are put together once. What is held never exceeds one record and what was pushed.

use super::{Codec, HEADER_BYTES, Header, Kind, Record, Run, checksum, is_range, slice_of, slices};
use crate::limits::{DATA_PAGES_MAX, PAGE_BYTES, ROUNDS_MAX, RUN_PAGES_MAX, SPACES_MAX};
use crate::stream::Bulk;
use bytes::{Buf as _, Bytes, BytesMut};
use std::collections::VecDeque;
use std::fmt;
use zstd::bulk::Decompressor;

/// Why a stream cannot be read on. All are final: it has lost its record boundaries, or lies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("a page record has the unknown kind {kind} or codec {codec}")]
    Unknown { kind: u8, codec: u8 },
    #[error("a page record of {pages} pages at {address:#x} of space {space} cannot be")]
    Range { space: u32, address: u64, pages: u32 },
    #[error("a page record of {pages} pages announces {encoded} bytes")]
    Length { pages: u32, encoded: u32 },
    #[error("the page at {address:#x} of space {space} came on a stream that is not its own")]
    WrongStream { space: u32, address: u64 },
    #[error("the pages at {address:#x} of space {space} cannot be decompressed")]
    Compression { space: u32, address: u64 },
    #[error("a page record for {address:#x} of space {space} was changed on its way")]
    Checksum { space: u32, address: u64 },
    #[error("a stream ends round {0}, which is beyond every limit")]
    Round(u32),
}

pub struct Decoder {
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    /// Emptied of one record when the next is read; its memory returns when nobody holds the last.
    room: BytesMut,
    decompressor: Decompressor<'static>,
    slices: Bulk,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending_bytes = &self.pending_bytes;
        f.debug_struct("Decoder").field("pending_bytes", pending_bytes).finish_non_exhaustive()
    }
}

/// The bytes of the largest block, and of no record more.
const BLOCK_BYTES_MAX: usize = DATA_PAGES_MAX as usize * PAGE_BYTES;

impl Decoder {
    /// For a bulk stream, which may only carry its own slices. The error is zstd's, when it has no
    /// memory for its context.
    pub fn new(slices: Bulk) -> std::io::Result<Self> {
        Ok(Self {
            pending: VecDeque::new(),
            pending_bytes: 0,
            room: BytesMut::new(),
            decompressor: Decompressor::new()?,
            slices,
        })
    }

    /// For a fault connection, which carries whatever was asked for.
    pub fn unsliced() -> std::io::Result<Self> {
        Self::new(Bulk { index: 0, of: 1 })
    }

    /// Takes what arrived. Call `next_record` until it has nothing more, then push again.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pending_bytes += bytes.len();
            self.pending.push_back(bytes);
        }
    }

    /// The bytes that wait for the rest of their record.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// The next record, verified; `None` until more was pushed.
    pub fn next_record(&mut self) -> Result<Option<Record>, PageError> {
        let Some(bytes) = self.peek_header() else { return Ok(None) };
        let header = Header::read(&bytes);
        let kind = header.check(bytes[2..4] == [0, 0])?;
        if self.pending_bytes < HEADER_BYTES + header.encoded as usize {
            return Ok(None);
        }
        let Header { space, address, pages, encoded, .. } = header;
        let own =
            kind == Kind::End || slice_of(space, address, self.slices.of) == self.slices.index;
        if !own {
            return Err(PageError::WrongStream { space, address });
        }
        self.skip(HEADER_BYTES);
        let encoded = self.take(encoded as usize);
        let raw = self.raw(&header, encoded)?;
        if checksum(&bytes, &raw).to_le_bytes() != bytes[24..] {
            return Err(PageError::Checksum { space, address });
        }
        Ok(Some(kind.record(Run { space, address, pages }, raw)))
    }

    /// Looks at no more pieces than the header has bytes, however small the network cuts them.
    fn peek_header(&self) -> Option<[u8; HEADER_BYTES]> {
        let mut header = [0; HEADER_BYTES];
        let mut filled = 0;
        for piece in self.pending.iter().take(HEADER_BYTES) {
            let length = piece.len().min(HEADER_BYTES - filled);
            header[filled..filled + length].copy_from_slice(&piece[..length]);
            filled += length;
        }
        (filled == HEADER_BYTES).then_some(header)
    }

    fn raw(&mut self, header: &Header, encoded: Bytes) -> Result<Bytes, PageError> {
        if header.codec == Codec::Plain as u8 {
            return Ok(encoded);
        }
        let length = header.pages as usize * PAGE_BYTES;
        self.room.resize(length, 0);
        let written = self.decompressor.decompress_to_buffer(&encoded, &mut self.room[..]);
        if !written.is_ok_and(|written| written == length) {
            let Header { space, address, .. } = *header;
            return Err(PageError::Compression { space, address });
        }
        Ok(self.room.split().freeze())
    }

    fn skip(&mut self, mut count: usize) {
        self.pending_bytes -= count;
        while let Some(piece) = self.pending.front_mut() {
            let length = piece.len().min(count);
            piece.advance(length);
            count -= length;
            if piece.has_remaining() {
                break;
            }
            self.pending.pop_front();
        }
    }

    /// Exactly `count` bytes, which are known to be there.
    fn take(&mut self, count: usize) -> Bytes {
        if let Some(first) = self.pending.front_mut()
            && first.len() >= count
        {
            let whole = first.slice(..count);
            self.skip(count);
            return whole;
        }
        self.gather(count)
    }

    fn gather(&mut self, count: usize) -> Bytes {
        self.room.reserve(count);
        while self.room.len() < count {
            let Some(piece) = self.pending.front() else { break };
            let length = piece.len().min(count - self.room.len());
            self.room.extend_from_slice(&piece[..length]);
            self.skip(length);
        }
        self.room.split().freeze()
    }
}

impl Header {
    /// Everything that can be said of a record before its bytes are there.
    fn check(&self, reserved_is_zero: bool) -> Result<Kind, PageError> {
        let Self { codec, space, address, pages, encoded, .. } = *self;
        let kind = self.kind().filter(|_| reserved_is_zero);
        let kind = kind.ok_or(PageError::Unknown { kind: self.kind, codec })?;
        if !self.length_fits(kind) {
            return Err(PageError::Length { pages, encoded });
        }
        if kind == Kind::End {
            return self.check_end();
        }
        let pages_max = if kind == Kind::Data { DATA_PAGES_MAX } else { RUN_PAGES_MAX };
        let possible = space < SPACES_MAX
            && (1..=pages_max).contains(&pages)
            && is_range(address, pages)
            && slices(space, address, u64::from(pages)).count() == 1;
        if possible { Ok(kind) } else { Err(PageError::Range { space, address, pages }) }
    }

    fn check_end(&self) -> Result<Kind, PageError> {
        let Self { space, address, pages: round, .. } = *self;
        if (space, address) != (0, 0) {
            return Err(PageError::Range { space, address, pages: round });
        }
        if round > ROUNDS_MAX { Err(PageError::Round(round)) } else { Ok(Kind::End) }
    }

    fn kind(&self) -> Option<Kind> {
        Some(match (self.kind, self.codec) {
            (1, 0 | 1) => Kind::Data,
            (2, 0) => Kind::Zero,
            (3, 0) => Kind::Dropped,
            (4, 0) => Kind::Stale,
            (5, 0) => Kind::End,
            _ => return None,
        })
    }

    fn length_fits(&self, kind: Kind) -> bool {
        let (encoded, raw) = (self.encoded as usize, self.pages as usize * PAGE_BYTES);
        match kind {
            Kind::Data if self.codec == Codec::Plain as u8 => {
                encoded == raw && raw <= BLOCK_BYTES_MAX
            }
            // One that does not shrink would have been sent plain.
            Kind::Data => 0 < encoded && encoded < raw && raw <= BLOCK_BYTES_MAX,
            _ => encoded == 0,
        }
    }
}

impl Kind {
    fn record(self, run: Run, bytes: Bytes) -> Record {
        match self {
            Self::Data => Record::Data { space: run.space, address: run.address, bytes },
            Self::Zero => Record::Zero(run),
            Self::Dropped => Record::Dropped(run),
            Self::Stale => Record::Stale(run),
            Self::End => Record::End { round: run.pages },
        }
    }
}
