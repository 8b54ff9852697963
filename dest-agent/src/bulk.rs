//! Bulk streams: each has a thread of its own, which brings its pages into the tree's memory.
//!
//! A thread and not a task, because filling blocks. It reads no faster than it fills, so what is
//! on its way here is bounded by the connection's window and never by the size of a round.

use crate::gate::{Gate, GateError, Open, Pass};
use crate::report;
use crate::session::Event;
use bytes::Bytes;
use engine::memory::fill::Filler;
use engine::memory::lazy::LazyMemory;
use engine::priority::ThreadYields;
use link::{BulkReceiver, LinkError};
use protocol::Phase;
use protocol::destination::{Doing, Input};
use protocol::pages::{Decoder, PageError, Record};
use protocol::stream::Bulk;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::runtime::Handle;

/// Pieces that are filled in with one system call, 64 KiB each.
const BATCH_PIECES: usize = 32;
/// Network packets taken off the stream at a time.
const PACKETS: usize = 32;
/// After so many reads a round is one of copying ahead, which nobody stands still for: 3 MiB.
const READS_IN_HASTE: u32 = 64;
/// How often a silent stream looks whether it is still wanted.
const LOOK_WAIT: Duration = Duration::from_secs(1);

/// A stream that has said what it is for.
#[derive(Debug)]
pub struct BulkStream {
    pub receiver: BulkReceiver,
    pub slices: Bulk,
    /// What came behind the head.
    pub first: Bytes,
}

/// Why a stream's pages cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    #[error("read the page records of stream {index}")]
    Record { index: u32, source: PageError },
    #[error("receive stream {index}")]
    Link { index: u32, source: LinkError },
    #[error("keep the order of the rounds")]
    Gate(#[from] GateError),
    #[error("store pages")]
    Store(#[from] engine::Error),
    #[error("put pages into place")]
    Fill(#[source] engine::Error),
    #[error("decompress the pages of stream {index}")]
    Decompressor { index: u32, source: io::Error },
    #[error("stream {index} ended in the middle of a round")]
    Ended { index: u32 },
}

impl BulkError {
    /// As the session is told of it.
    pub fn event(&self) -> Event {
        match self {
            Self::Fill(error) => Event::PagesLost(report::of_engine(Phase::Lazy, error)),
            other => Event::Input(other.input()),
        }
    }

    /// As the machine is told of it.
    pub fn input(&self) -> Input {
        let (doing, failure) = match self {
            Self::Fill(error) => (Doing::Fill, report::of_engine(Phase::Lazy, error)),
            Self::Store(error) => (Doing::Store, report::of_engine(Phase::Rounds, error)),
            other => (Doing::Store, report::of(Phase::Rounds, other)),
        };
        Input::Failed { doing, failure }
    }

    /// Whether it is the connection's end, which is told elsewhere.
    pub fn is_lost_link(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Ended { .. })
    }
}

/// Reads the stream until it ends; `failed` is told if it cannot be read to its end.
pub fn spawn(
    stream: BulkStream,
    gate: Arc<Gate>,
    pass: Pass,
    failed: impl FnOnce(BulkError) + Send + 'static,
) -> io::Result<()> {
    let index = stream.slices.index;
    let runtime = Handle::current();
    std::thread::Builder::new().name(format!("bulk {index}")).spawn(move || {
        let result = Reader::new(stream, &gate, pass, runtime).and_then(Reader::run);
        gate.leave(pass);
        if let Err(error) = result {
            failed(error);
        }
    })?;
    Ok(())
}

struct Reader<'a> {
    index: u32,
    pass: Pass,
    receiver: BulkReceiver,
    decoder: Decoder,
    gate: &'a Gate,
    runtime: Handle,
}

impl<'a> Reader<'a> {
    fn new(
        stream: BulkStream,
        gate: &'a Gate,
        pass: Pass,
        runtime: Handle,
    ) -> Result<Self, BulkError> {
        let BulkStream { receiver, slices, first } = stream;
        let index = slices.index;
        let decoder = Decoder::new(slices);
        let mut decoder = decoder.map_err(|source| BulkError::Decompressor { index, source })?;
        decoder.push(first);
        Ok(Self { index, pass, receiver, decoder, gate, runtime })
    }

    fn run(mut self) -> Result<(), BulkError> {
        let mut round = 0;
        loop {
            match self.runtime.block_on(self.gate.enter(round)) {
                Open::Round { filler, .. } => {
                    if self.fill(&filler)?.is_none() {
                        return Ok(());
                    }
                    round += 1;
                }
                Open::Push(memory) => return self.push(&memory),
                Open::Over => return Ok(()),
            }
        }
    }

    /// Up to the end record of the round that is open; `None` when nothing is wanted any more.
    fn fill(&mut self, filler: &RwLock<Filler>) -> Result<Option<()>, BulkError> {
        let mut batch = Batch { filler, gate: self.gate, space: 0, pieces: Vec::new() };
        let (mut reads, mut yields) = (0, None);
        loop {
            while let Some(record) = self.next_record()? {
                if let Record::End { round } = record {
                    batch.flush()?;
                    self.gate.end(self.pass, round)?;
                    return Ok(Some(()));
                }
                batch.add(record)?;
            }
            // What is there is stored before more is waited for.
            batch.flush()?;
            reads += 1;
            if reads == READS_IN_HASTE {
                yields.get_or_insert_with(ThreadYields::begin);
            }
            match self.read()? {
                Read::Some => {}
                Read::Over => return Ok(None),
                Read::Ended => return Err(BulkError::Ended { index: self.index }),
            }
        }
    }

    /// Everything that is pushed while the tree runs.
    fn push(&mut self, memory: &LazyMemory) -> Result<(), BulkError> {
        loop {
            while let Some(record) = self.next_record()? {
                match record {
                    Record::End { round } => self.gate.end(self.pass, round)?,
                    record => deliver(memory, record).map_err(BulkError::Fill)?,
                }
            }
            if self.read()? != Read::Some {
                return Ok(());
            }
        }
    }

    fn next_record(&mut self) -> Result<Option<Record>, BulkError> {
        let index = self.index;
        self.decoder.next_record().map_err(|source| BulkError::Record { index, source })
    }

    fn read(&mut self) -> Result<Read, BulkError> {
        let mut packets: [Bytes; PACKETS] = std::array::from_fn(|_| Bytes::new());
        loop {
            let read = self.receiver.read_many(&mut packets, LOOK_WAIT);
            match self.runtime.block_on(read) {
                Ok(Some(count)) => {
                    packets.into_iter().take(count).for_each(|bytes| self.decoder.push(bytes));
                    return Ok(Read::Some);
                }
                Ok(None) => return Ok(Read::Ended),
                Err(LinkError::TimedOut { .. }) if self.gate.is_over() => return Ok(Read::Over),
                Err(LinkError::TimedOut { .. }) => {}
                Err(source) => return Err(BulkError::Link { index: self.index, source }),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Some,
    Ended,
    Over,
}

/// Pages of one space that are filled in together.
struct Batch<'a> {
    filler: &'a RwLock<Filler>,
    gate: &'a Gate,
    space: u32,
    pieces: Vec<(u64, Bytes)>,
}

impl Batch<'_> {
    fn add(&mut self, record: Record) -> Result<(), BulkError> {
        match record {
            Record::Data { space, address, bytes } => {
                if space != self.space || self.pieces.len() >= BATCH_PIECES {
                    self.flush()?;
                    self.space = space;
                }
                self.pieces.push((address, bytes));
                Ok(())
            }
            // Whatever came before it may be about the same page.
            other => self.flush().and_then(|()| self.without_bytes(&other)),
        }
    }

    fn flush(&mut self) -> Result<(), BulkError> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let pieces: Vec<(u64, &[u8])> =
            self.pieces.iter().map(|(address, bytes)| (*address, &bytes[..])).collect();
        let filler = self.filler.read().unwrap_or_else(PoisonError::into_inner);
        filler.data_batch(self.space, &pieces)?;
        let bytes: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
        self.gate.count(bytes as u64 / engine::memory::PAGE_BYTES);
        self.pieces.clear();
        Ok(())
    }

    fn without_bytes(&self, record: &Record) -> Result<(), BulkError> {
        let filler = self.filler.read().unwrap_or_else(PoisonError::into_inner);
        match *record {
            Record::Zero(run) => filler.zero(run.space, run.address, run.pages.into())?,
            Record::Dropped(run) => filler.dropped(run.space, run.address, run.pages.into())?,
            // The image lists what is missing; the other two are not pages.
            Record::Stale(_) | Record::Data { .. } | Record::End { .. } => {}
        }
        Ok(())
    }
}

/// Pages for a tree that runs already, pushed or asked for.
pub fn deliver(memory: &LazyMemory, record: Record) -> Result<(), engine::Error> {
    match record {
        Record::Data { space, address, bytes } => memory.deliver(space, address, &bytes),
        Record::Zero(run) => memory.deliver_zero(run.space, run.address, run.pages.into()),
        // The program dropped them before the freeze: they read as zeros, as they would there.
        Record::Dropped(run) => memory.deliver_zero(run.space, run.address, run.pages.into()),
        Record::Stale(_) | Record::End { .. } => Ok(()),
    }
}
