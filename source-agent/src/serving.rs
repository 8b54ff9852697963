//! After the handover: answers faults, and pushes what nobody has asked for yet.
//!
//! On a thread of its own, because it reads memory and waits. A fault always goes first: a push is
//! only made when its streams have room at once, and while programs fault little is under way.

use crate::connection::PageLines;
use crate::faults::FaultLine;
use crate::news::{News, Post, tell};
use crate::page_streams::{PageStreams, Records};
use engine::source::Serving;
use link::Connection;
use protocol::source::{Doing, Input};
use protocol::stream::PageRequest;
use protocol::{Failure, Phase, Side};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pages of one push: what a fault may have to wait for.
const PUSH_PAGES: u64 = 64;

/// Bytes under way while programs fault: what they queue behind in the network.
const CAREFUL_BYTES: u32 = 256 << 10;
const EAGER_BYTES: u32 = 4 << 20;
/// After the last fault.
const CAREFUL_FOR: Duration = Duration::from_millis(50);

/// How soon a full stream is looked at again.
const ROOM_WAIT: Duration = Duration::from_millis(1);
/// How soon a stop is seen when there is nothing to push.
const IDLE_WAIT: Duration = Duration::from_millis(20);

/// What it needs of a line.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) streams: PageStreams,
    pub(crate) faults: FaultLine,
    pub(crate) bulk: Connection,
}

impl Lines {
    pub(crate) fn new(streams: PageStreams, lines: PageLines) -> Self {
        Self { streams, faults: lines.faults, bulk: lines.bulk }
    }
}

#[derive(Debug)]
pub(crate) struct ServingThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Lines>,
}

impl ServingThread {
    /// `round` is what the streams' end records say when everything was pushed.
    pub(crate) fn start(
        serving: Serving,
        lines: Lines,
        round: u32,
        post: Post,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let server = Server {
            serving,
            records: Records::new()?,
            stop: Arc::clone(&stop),
            round,
            last_fault: None,
            bytes_under_way: 0,
        };
        let thread = std::thread::Builder::new()
            .name("serving".into())
            .spawn(move || server.run(lines, &post))?;
        Ok(Self { stop, thread })
    }

    /// Waits for the end of what it is doing. The lines come back for another push.
    pub(crate) fn stop(self) -> Option<Lines> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok()
    }
}

struct Server {
    serving: Serving,
    records: Records,
    stop: Arc<AtomicBool>,
    round: u32,
    last_fault: Option<Instant>,
    bytes_under_way: u32,
}

impl Server {
    fn run(mut self, mut lines: Lines, post: &Post) -> Lines {
        if let Err(error) = self.serve(&mut lines, post) {
            // A lost link is told by the task that noticed it; the destination asks again.
            if error.source.kind() != io::ErrorKind::BrokenPipe {
                tell(post, News::Input(failed(&error)));
            }
        }
        lines
    }

    fn serve(&mut self, lines: &mut Lines, post: &Post) -> Result<(), engine::Error> {
        let mut is_pushed = false;
        while !self.stop.load(Ordering::Relaxed) {
            self.answer_all(&lines.faults)?;
            self.mind_the_faults(&lines.bulk);
            if is_pushed {
                self.wait_for_fault(&lines.faults, IDLE_WAIT)?;
            } else if !lines.streams.has_room() {
                self.wait_for_fault(&lines.faults, ROOM_WAIT)?;
            } else if !self.serving.push(PUSH_PAGES, &mut lines.streams)? {
                let ended = lines.streams.end_round(self.round);
                ended.map_err(|error| cannot("end the push to", error))?;
                tell(post, News::Input(Input::Pushed));
                is_pushed = true;
            }
        }
        Ok(())
    }

    fn answer_all(&mut self, faults: &FaultLine) -> Result<(), engine::Error> {
        while let Ok(request) = faults.requests.try_recv() {
            self.answer(request, faults)?;
        }
        Ok(())
    }

    fn wait_for_fault(&mut self, faults: &FaultLine, wait: Duration) -> Result<(), engine::Error> {
        match faults.requests.recv_timeout(wait) {
            Ok(request) => self.answer(request, faults),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(wait);
                Ok(())
            }
        }
    }

    /// What nobody lacks is answered with nothing: the destination knows what it has.
    fn answer(&mut self, request: PageRequest, faults: &FaultLine) -> Result<(), engine::Error> {
        self.last_fault = Some(Instant::now());
        let PageRequest { sequence, space, address, pages } = request;
        let answered = self.serving.answer(space, address, pages.into(), &mut self.records);
        match answered {
            Err(error) if error.source.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%error, space, address, pages, "a fault asks for what is not there");
            }
            other => other?,
        }
        faults.reply(sequence, &self.records.take());
        Ok(())
    }

    fn mind_the_faults(&mut self, bulk: &Connection) {
        let is_careful = self.last_fault.is_some_and(|at| at.elapsed() < CAREFUL_FOR);
        let bytes = if is_careful { CAREFUL_BYTES } else { EAGER_BYTES };
        if self.bytes_under_way != bytes {
            self.bytes_under_way = bytes;
            bulk.set_send_bytes_max(bytes);
        }
    }
}

fn cannot(action: &'static str, source: io::Error) -> engine::Error {
    engine::Error::new(action, engine::Object::Host, source)
}

fn failed(error: &engine::Error) -> Input {
    let failure = Failure::of(Side::Source, Phase::Lazy, error);
    if error.is_gone() {
        return Input::TreeEnded(failure);
    }
    Input::Failed { doing: Doing::Serve, failure }
}
