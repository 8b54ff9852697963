//! Where the engine's pages go: encoded, cut into chunks, and handed to one task a stream.
//!
//! Used from the engine's thread. What is under way is bounded: a full stream makes the engine
//! wait, and a lost one fails it.

use crate::cli::Speed;
use crate::codec::{CodecChoice, Compress};
use crate::interrupt::Interrupt;
use crate::pace::Pace;
use bytes::{Bytes, BytesMut};
use engine::memory::PageSink;
use protocol::limits::PAGE_BYTES;
use protocol::pages::{Encoder, Tally, slice_of, slices};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Sender, error::TrySendError};

pub(crate) const STREAMS: u32 = 4;

/// One write to the link. Bounds what is encoded and not yet on its way, with the next.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// Chunks waiting before each stream: 8 MiB over four of them.
pub(crate) const CHUNKS_MAX: usize = 8;

/// What the longest record adds to a chunk that was just not full.
const RECORD_BYTES_MAX: usize = engine::memory::DATA_BYTES_MAX + 64;

/// What the operator asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    pub(crate) bandwidth_megabit: Option<u64>,
    pub(crate) compress: Compress,
}

impl Wishes {
    /// As fast as it goes.
    pub(crate) fn plain() -> Self {
        Self { bandwidth_megabit: None, compress: Compress::Auto }
    }
}

impl From<Speed> for Wishes {
    fn from(Speed { bandwidth, compress }: Speed) -> Self {
        Self { bandwidth_megabit: bandwidth, compress }
    }
}

#[derive(Debug)]
pub(crate) struct PageStreams {
    lanes: Vec<Lane>,
    pace: Pace,
    choice: CodecChoice,
    interrupt: Arc<Interrupt>,
    /// Of encoders that were replaced.
    tally: Tally,
    /// Of pages, since the last chunk.
    raw_bytes: u64,
}

#[derive(Debug)]
struct Lane {
    encoder: Encoder,
    buffer: BytesMut,
    sender: Sender<Bytes>,
}

impl PageStreams {
    /// The error is zstd's, when it has no memory.
    pub(crate) fn new(
        senders: Vec<Sender<Bytes>>,
        wishes: Wishes,
        interrupt: Arc<Interrupt>,
    ) -> io::Result<Self> {
        assert_eq!(senders.len(), STREAMS as usize, "there is a sender for every stream");
        let pace = Pace::new(wishes.bandwidth_megabit);
        let slow = pace.is_below(crate::codec::COMPRESSOR_BYTES_PER_S);
        let choice = CodecChoice::new(wishes.compress, slow);
        let lane = |sender| Lane::new(Encoder::new(choice.codec())?, sender);
        let lanes = senders.into_iter().map(lane).collect::<io::Result<_>>()?;
        Ok(Self { lanes, pace, choice, interrupt, tally: Tally::default(), raw_bytes: 0 })
    }

    /// Ends the round on every stream, and tells what was sent in it.
    pub(crate) fn end_round(&mut self, round: u32) -> io::Result<Tally> {
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            lane.encoder.end(round, &mut lane.buffer);
            self.flush(index)?;
        }
        self.choice.start_anew();
        for lane in &mut self.lanes {
            self.tally += lane.encoder.take_tally();
        }
        Ok(std::mem::take(&mut self.tally))
    }

    /// Whether a push would find room at once: then it cannot keep a fault waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.pace.is_ready() && self.lanes.iter().all(|lane| lane.sender.capacity() >= 2)
    }

    fn lane_of(&self, space: u32, address: u64) -> usize {
        slice_of(space, address, STREAMS) as usize
    }

    fn flush_if_full(&mut self, index: usize) -> io::Result<()> {
        if self.lanes[index].buffer.len() >= CHUNK_BYTES { self.flush(index) } else { Ok(()) }
    }

    fn flush(&mut self, index: usize) -> io::Result<()> {
        let chunk = self.lanes[index].take();
        let (bytes, began) = (chunk.len(), Instant::now());
        self.pace.admit(bytes, &self.interrupt)?;
        self.lanes[index].send(chunk)?;
        let raw_bytes = std::mem::take(&mut self.raw_bytes);
        let is_another = self.choice.note(raw_bytes, began.elapsed());
        if is_another { self.change_codec() } else { Ok(()) }
    }

    fn change_codec(&mut self) -> io::Result<()> {
        for lane in &mut self.lanes {
            let mut old = std::mem::replace(&mut lane.encoder, Encoder::new(self.choice.codec())?);
            self.tally += old.take_tally();
        }
        Ok(())
    }
}

impl Lane {
    fn new(encoder: Encoder, sender: Sender<Bytes>) -> io::Result<Self> {
        let buffer = BytesMut::with_capacity(CHUNK_BYTES + RECORD_BYTES_MAX);
        Ok(Self { encoder, buffer, sender })
    }

    fn take(&mut self) -> Bytes {
        let chunk = self.buffer.split().freeze();
        self.buffer.reserve(CHUNK_BYTES + RECORD_BYTES_MAX);
        chunk
    }

    fn send(&self, chunk: Bytes) -> io::Result<()> {
        match self.sender.try_send(chunk) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(chunk)) => self.sender.blocking_send(chunk).map_err(|_| lost()),
            Err(TrySendError::Closed(_)) => Err(lost()),
        }
    }
}

/// Why it was lost is known to the task that had the stream, and told by it.
fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the link does not take pages any more")
}

impl PageSink for PageStreams {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.raw_bytes += bytes.len() as u64;
        let mut rest = bytes;
        for run in slices(space, address, (bytes.len() / PAGE_BYTES) as u64) {
            let (piece, later) = rest.split_at(run.pages as usize * PAGE_BYTES);
            rest = later;
            let index = self.lane_of(space, run.address);
            let lane = &mut self.lanes[index];
            lane.encoder.data(space, run.address, piece, &mut lane.buffer);
            self.flush_if_full(index)?;
        }
        Ok(())
    }

    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        for run in slices(space, address, pages) {
            let index = self.lane_of(space, run.address);
            let lane = &mut self.lanes[index];
            lane.encoder.zero(space, run.address, u64::from(run.pages), &mut lane.buffer);
            self.flush_if_full(index)?;
        }
        Ok(())
    }

    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        for run in slices(space, address, pages) {
            let index = self.lane_of(space, run.address);
            let lane = &mut self.lanes[index];
            lane.encoder.dropped(space, run.address, u64::from(run.pages), &mut lane.buffer);
            self.flush_if_full(index)?;
        }
        Ok(())
    }
}

/// The records of one answer, which all go the same way.
#[derive(Debug)]
pub(crate) struct Records {
    encoder: Encoder,
    buffer: BytesMut,
}

impl Records {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { encoder: Encoder::new(protocol::pages::Codec::Plain)?, buffer: BytesMut::new() })
    }

    pub(crate) fn take(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

impl PageSink for Records {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        for run in slices(space, address, (bytes.len() / PAGE_BYTES) as u64) {
            let (piece, later) = rest.split_at(run.pages as usize * PAGE_BYTES);
            rest = later;
            self.encoder.data(space, run.address, piece, &mut self.buffer);
        }
        Ok(())
    }

    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.encoder.zero(space, address, pages, &mut self.buffer);
        Ok(())
    }

    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.encoder.dropped(space, address, pages, &mut self.buffer);
        Ok(())
    }
}

/// Long enough for any wait of the link that is not a loss.
pub(crate) const WRITE_WAIT: Duration = protocol::limits::ROUND_WAIT;
