//! The fault connection: what a program waits for is asked for here, and comes back here.

use crate::bulk::deliver;
use crate::report;
use bytes::Bytes;
use engine::memory::PAGE_BYTES;
use engine::memory::lazy::{LazyMemory, PageSource};
use link::{Connection, FrameReceiver, FrameSender, LinkError};
use protocol::framing::{self, FrameError};
use protocol::limits::FAULT_PAGES_MAX;
use protocol::pages::{self, PageError};
use protocol::stream::{FaultEnvelope, FaultMessage, PageReply, PageRequest, StreamError};
use protocol::{Failure, Phase};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// For room in the window for a few requests.
const SEND_WAIT: Duration = Duration::from_secs(10);
/// How often a silent connection looks whether it is still wanted.
const LOOK_WAIT: Duration = Duration::from_secs(1);
/// Requests in one frame.
const REQUESTS_AT_ONCE: usize = 64;
/// Requests that may wait for their answers; a source takes no more of them either.
const REQUESTS_MAX: usize = 8 << 10;
/// For an answer. A source that has not given it by then is asked to come back: the link keeps
/// itself alive, so its silence alone would never end.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Threads that read answers, at once: one, and those that have yet to notice that another has
/// taken their place.
const READERS_MAX: usize = 8;

/// What closes a connection on which nothing more can come.
const OF_NO_USE: u32 = link::CALLER_CODES + 1;

/// A fault stream that has said what it is for.
#[derive(Debug)]
pub struct FaultStream {
    pub connection: Connection,
    pub sender: FrameSender,
    pub receiver: FrameReceiver,
    /// Holds what came behind the head.
    pub frames: framing::Decoder,
}

/// Where the pages of one tree are asked for, through whichever connection there is.
#[derive(Debug, Default)]
pub struct Faults {
    requests: Mutex<Connected>,
    sequence: AtomicU64,
    readers: Arc<()>,
    /// Weak: the memory's own thread has us, and must not be the last to let go of it.
    memory: OnceLock<Weak<LazyMemory>>,
}

#[derive(Debug, Default)]
struct Connected {
    number: u64,
    line: Option<Line>,
}

/// The connection that there is at the moment.
#[derive(Debug)]
struct Line {
    connection: Connection,
    /// Bounded by what may wait for its answer.
    sender: UnboundedSender<PageRequest>,
    /// By sequence number.
    asked: BTreeMap<u64, (PageRequest, Instant)>,
}

#[derive(Debug, thiserror::Error)]
enum FaultError {
    #[error("receive pages that were asked for")]
    Link(#[from] LinkError),
    #[error("read the fault connection")]
    Frame(#[from] FrameError),
    #[error("read the fault connection")]
    Stream(#[from] StreamError),
    #[error("read pages that were asked for")]
    Record(#[from] PageError),
    #[error("make room for pages that were asked for")]
    Decompressor(#[from] io::Error),
    #[error("put pages into place")]
    Engine(#[from] engine::Error),
    #[error("a source asks its destination for pages")]
    Reversed,
    #[error("pages came that nobody had asked for")]
    Unasked,
    #[error("the source ended the fault connection while pages are missing")]
    Ended,
    #[error("the source has not answered for {ANSWER_WAIT:?}")]
    Stalled,
    #[error("the source has no page at {address:#x} of space {space}, and the tree lacks it")]
    Nowhere { space: u32, address: u64 },
}

impl PageSource for Faults {
    fn request(&self, space: u32, address: u64, pages: u32) {
        let mut connected = self.lock();
        let Some(line) = &mut connected.line else { return };
        let most = u64::from(FAULT_PAGES_MAX);
        let end = address + u64::from(pages) * PAGE_BYTES;
        let step = usize::try_from(most * PAGE_BYTES).unwrap_or(usize::MAX);
        for address in (address..end).step_by(step) {
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
            let pages = (end - address) / PAGE_BYTES;
            let pages = u32::try_from(pages.min(most)).unwrap_or(FAULT_PAGES_MAX);
            let request = PageRequest { sequence, space, address, pages };
            if line.asked.len() >= REQUESTS_MAX {
                // All of it is asked for again on the next one.
                line.connection.close(OF_NO_USE, "too many pages were asked for in vain");
                return;
            }
            line.asked.insert(sequence, (request, Instant::now()));
            // Fails when the connection was just lost; then all is asked for again.
            let _ = line.sender.send(request);
        }
    }
}

impl Faults {
    /// The memory that answers go to, from now on.
    pub fn serve(&self, memory: &Arc<LazyMemory>) {
        if self.memory.set(Arc::downgrade(memory)).is_err() {
            tracing::error!("a tree has its memory twice");
        }
    }

    fn memory(&self) -> Option<Arc<LazyMemory>> {
        self.memory.get().and_then(Weak::upgrade)
    }

    /// Goes on with this stream, in the place of the one before. `failed` is told when pages have
    /// come and cannot be put into place; that a connection was lost is told elsewhere.
    pub fn attach(
        self: &Arc<Self>,
        stream: FaultStream,
        failed: impl FnOnce(Failure) + Send + 'static,
    ) -> io::Result<()> {
        let FaultStream { connection, sender, receiver, frames } = stream;
        if Arc::strong_count(&self.readers) > READERS_MAX {
            tracing::warn!(from = %connection.address(), "turned away: too many fault connections");
            connection.close(OF_NO_USE, "too many fault connections");
            return Ok(());
        }
        let reader = Arc::clone(&self.readers);
        let (requests, to_send) = unbounded_channel();
        let line =
            Line { connection: connection.clone(), sender: requests, asked: BTreeMap::new() };
        let number = self.lock().replace(Some(line));
        tokio::spawn(send(connection, sender, to_send));
        let (faults, runtime) = (Arc::clone(self), Handle::current());
        std::thread::Builder::new().name("faults".to_owned()).spawn(move || {
            let _counted = reader;
            let result = Receiving { faults: &faults, receiver, frames, runtime, number }.run();
            faults.lost(number, &result);
            match result {
                Ok(()) => {}
                Err(FaultError::Engine(error)) => failed(report::of_engine(Phase::Lazy, &error)),
                Err(error @ FaultError::Nowhere { .. }) => failed(report::of(Phase::Lazy, &error)),
                Err(error) => {
                    tracing::info!("the fault connection ended: {}", report::chain(&error));
                }
            }
        })?;
        if let Some(memory) = self.memory() {
            memory.ask_again(&**self);
        }
        Ok(())
    }

    /// The source is told at once, so that it comes back: half a connection brings no pages, and
    /// it may be the half that it does not look at.
    fn lost(&self, number: u64, result: &Result<(), FaultError>) {
        let mut connected = self.lock();
        if connected.number != number {
            return;
        }
        if let (Some(line), Err(error)) = (&connected.line, result) {
            line.connection.close(OF_NO_USE, &report::chain(error));
        }
        connected.line = None;
        // Under the lock: a new connection must not be abandoned in the place of this one.
        if let Some(memory) = self.memory() {
            memory.abandon();
        }
    }

    /// Nothing will be asked any more.
    pub fn close(&self) {
        self.lock().replace(None);
    }

    fn is_current(&self, number: u64) -> bool {
        self.lock().number == number
    }

    fn lock(&self) -> MutexGuard<'_, Connected> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    fn replace(&mut self, line: Option<Line>) -> u64 {
        self.number += 1;
        self.line = line;
        self.number
    }

    /// What the answer with this number is an answer to.
    fn answered(&mut self, number: u64, sequence: u64) -> Option<PageRequest> {
        let line = self.line.as_mut().filter(|_| self.number == number)?;
        line.asked.remove(&sequence).map(|(request, _)| request)
    }

    fn waits_too_long(&self) -> bool {
        let oldest = self.line.as_ref().and_then(|line| line.asked.values().next());
        oldest.is_some_and(|(_, since)| since.elapsed() > ANSWER_WAIT)
    }
}

async fn send(
    connection: Connection,
    mut sender: FrameSender,
    mut requests: UnboundedReceiver<PageRequest>,
) {
    let mut ready = Vec::with_capacity(REQUESTS_AT_ONCE);
    while requests.recv_many(&mut ready, REQUESTS_AT_ONCE).await > 0 {
        let mut frame = Vec::new();
        for request in ready.drain(..) {
            let message = Some(FaultMessage::PageRequest(request));
            if let Err(error) = framing::encode(&FaultEnvelope { message }, &mut frame) {
                tracing::error!("a request cannot be written: {error}");
            }
        }
        if let Err(error) = sender.send(frame.into(), SEND_WAIT).await {
            let cause = format!("ask for pages: {}", report::chain(&error));
            tracing::info!("{cause}");
            // Whoever reads answers learns it by that, and so does the source.
            connection.close(OF_NO_USE, &cause);
            return;
        }
    }
    if let Err(error) = sender.finish(SEND_WAIT).await {
        tracing::debug!("end the fault connection: {}", report::chain(&error));
    }
}

struct Receiving<'a> {
    faults: &'a Faults,
    receiver: FrameReceiver,
    frames: framing::Decoder,
    runtime: Handle,
    number: u64,
}

impl Receiving<'_> {
    /// A thread and not a task, because putting pages into place blocks.
    fn run(mut self) -> Result<(), FaultError> {
        loop {
            while let Some(envelope) = self.frames.next_frame::<FaultEnvelope>()? {
                let FaultMessage::PageReply(reply) = envelope.check()? else {
                    return Err(FaultError::Reversed);
                };
                let memory = self.faults.memory().ok_or(FaultError::Unasked)?;
                let request = self.faults.lock().answered(self.number, reply.sequence);
                let request = match request {
                    Some(request) => request,
                    None if !self.faults.is_current(self.number) => return Ok(()),
                    None => return Err(FaultError::Unasked),
                };
                self.take_in(&memory, reply)?;
                expect_all_of(request, &memory)?;
            }
            match self.read()? {
                Read::Some(bytes) => self.frames.push(&bytes),
                Read::Unwanted => return Ok(()),
            }
        }
    }

    /// The records of one reply.
    fn take_in(&mut self, memory: &LazyMemory, reply: PageReply) -> Result<(), FaultError> {
        let mut decoder = pages::Decoder::unsliced()?;
        let mut left = reply.records_bytes as usize;
        loop {
            let bytes = self.frames.take_unframed(left);
            left -= bytes.len();
            decoder.push(bytes);
            while let Some(record) = decoder.next_record()? {
                deliver(memory, record)?;
            }
            if left == 0 {
                return Ok(());
            }
            match self.read()? {
                Read::Some(bytes) => self.frames.push(&bytes),
                Read::Unwanted => return Ok(()),
            }
        }
    }

    fn read(&mut self) -> Result<Read, FaultError> {
        loop {
            match self.runtime.block_on(self.receiver.receive(LOOK_WAIT)) {
                _ if !self.faults.is_current(self.number) => return Ok(Read::Unwanted),
                Err(LinkError::TimedOut { .. }) if self.faults.lock().waits_too_long() => {
                    return Err(FaultError::Stalled);
                }
                Err(LinkError::TimedOut { .. }) => {}
                Ok(None) => return Err(FaultError::Ended),
                Ok(Some(bytes)) => return Ok(Read::Some(bytes)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[derive(Debug)]
enum Read {
    Some(Bytes),
    /// Another connection has taken this one's place, or none is needed any more.
    Unwanted,
}

/// A source that answers without a page that the tree still lacks will never have it.
fn expect_all_of(request: PageRequest, memory: &LazyMemory) -> Result<(), FaultError> {
    let PageRequest { space, address, pages, .. } = request;
    match memory.still_missing(space, address, pages.into()) {
        Some(address) => Err(FaultError::Nowhere { space, address }),
        None => Ok(()),
    }
}
