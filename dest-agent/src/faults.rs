//! The fault connection: what a program waits for is asked for here, and comes back here.

use crate::bulk::deliver;
use crate::report;
use bytes::Bytes;
use engine::memory::PAGE_BYTES;
use engine::memory::lazy::{LazyMemory, PageSource};
use link::{FrameReceiver, FrameSender, LinkError};
use protocol::framing::{self, FrameError};
use protocol::limits::FAULT_PAGES_MAX;
use protocol::pages::{self, PageError};
use protocol::stream::{FaultEnvelope, FaultMessage, PageReply, PageRequest, StreamError};
use protocol::{Failure, Phase};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// For room in the window for a few requests.
const SEND_WAIT: Duration = Duration::from_secs(10);
/// How often a silent connection looks whether it is still wanted.
const LOOK_WAIT: Duration = Duration::from_secs(1);
/// Requests in one frame.
const REQUESTS_AT_ONCE: usize = 64;

/// A fault stream that has said what it is for.
#[derive(Debug)]
pub struct FaultStream {
    pub sender: FrameSender,
    pub receiver: FrameReceiver,
    /// Holds what came behind the head.
    pub frames: framing::Decoder,
}

/// Where the pages of one tree are asked for, through whichever connection there is.
#[derive(Debug, Default)]
pub struct Faults {
    /// Unbounded, and short all the same: no page is asked for twice, and each request stands for
    /// a thread that waits.
    requests: Mutex<Connected>,
    sequence: AtomicU64,
    /// Weak: the memory's own thread has us, and must not be the last to let go of it.
    memory: OnceLock<Weak<LazyMemory>>,
}

#[derive(Debug, Default)]
struct Connected {
    number: u64,
    sender: Option<UnboundedSender<PageRequest>>,
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
}

impl PageSource for Faults {
    fn request(&self, space: u32, address: u64, pages: u32) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &requests.sender else { return };
        let most = u64::from(FAULT_PAGES_MAX);
        let end = address + u64::from(pages) * PAGE_BYTES;
        let step = usize::try_from(most * PAGE_BYTES).unwrap_or(usize::MAX);
        for address in (address..end).step_by(step) {
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
            let pages = (end - address) / PAGE_BYTES;
            let pages = u32::try_from(pages.min(most)).unwrap_or(FAULT_PAGES_MAX);
            // Fails when the connection was just lost; then all is asked for again.
            let _ = sender.send(PageRequest { sequence, space, address, pages });
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
        let FaultStream { sender, receiver, frames } = stream;
        let (requests, to_send) = unbounded_channel();
        let number = {
            let mut connected = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            connected.number += 1;
            connected.sender = Some(requests);
            connected.number
        };
        tokio::spawn(send(sender, to_send));
        let (faults, runtime) = (Arc::clone(self), Handle::current());
        std::thread::Builder::new().name("faults".to_owned()).spawn(move || {
            let result = Receiving { faults: &faults, receiver, frames, runtime, number }.run();
            faults.lost(number);
            match result {
                Ok(()) => {}
                Err(FaultError::Engine(error)) => failed(report::of_engine(Phase::Lazy, &error)),
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

    fn lost(&self, number: u64) {
        let mut connected = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.number == number {
            connected.sender = None;
            drop(connected);
            if let Some(memory) = self.memory() {
                memory.abandon();
            }
        }
    }

    /// Nothing will be asked any more.
    pub fn close(&self) {
        let mut connected = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        connected.number += 1;
        connected.sender = None;
    }

    fn is_current(&self, number: u64) -> bool {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).number == number
    }
}

async fn send(mut sender: FrameSender, mut requests: UnboundedReceiver<PageRequest>) {
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
            tracing::info!("ask for pages: {}", report::chain(&error));
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
                if !self.take_in(&memory, reply)? {
                    return Ok(());
                }
            }
            match self.read()? {
                Some(bytes) => self.frames.push(&bytes),
                None => return Ok(()),
            }
        }
    }

    /// The records of one reply; `false` when the stream ends before they do.
    fn take_in(&mut self, memory: &LazyMemory, reply: PageReply) -> Result<bool, FaultError> {
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
                return Ok(true);
            }
            match self.read()? {
                Some(bytes) => self.frames.push(&bytes),
                None => return Ok(false),
            }
        }
    }

    fn read(&mut self) -> Result<Option<Bytes>, FaultError> {
        loop {
            match self.runtime.block_on(self.receiver.receive(LOOK_WAIT)) {
                Err(LinkError::TimedOut { .. }) if self.faults.is_current(self.number) => {}
                Err(LinkError::TimedOut { .. }) => return Ok(None),
                other => return Ok(other?),
            }
        }
    }
}
