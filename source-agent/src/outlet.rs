//! Where the engine's thread sends pages to: the streams while it copies, a thread that serves
//! afterwards, and nothing between two links.

use crate::connection::PageLines;
use crate::interrupt::Interrupt;
use crate::news::Post;
use crate::page_streams::{PageStreams, Wishes};
use crate::serving::{Lines, ServingThread};
use engine::source::Serving;
use engine::{Error, Object, OnObject as _};
use protocol::pages::Tally;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Outlet {
    wishes: Wishes,
    interrupt: Arc<Interrupt>,
    lines: Option<Lines>,
    serving: Option<ServingThread>,
    last_round: u32,
}

impl Outlet {
    pub(crate) fn new(wishes: Wishes, interrupt: Arc<Interrupt>) -> Self {
        Self { wishes, interrupt, lines: None, serving: None, last_round: 0 }
    }

    /// New lines replace those of a link that was lost.
    pub(crate) fn attach(&mut self, mut lines: PageLines) {
        self.stop_serving();
        let senders = std::mem::take(&mut lines.senders);
        match PageStreams::new(senders, self.wishes, Arc::clone(&self.interrupt)) {
            Ok(streams) => self.lines = Some(Lines::new(streams, lines)),
            // The next round or push says that there are no streams.
            Err(error) => tracing::error!(%error, "no memory for a compressor"),
        }
    }

    pub(crate) fn streams(&mut self) -> Result<&mut PageStreams, Error> {
        self.lines.as_mut().map(|lines| &mut lines.streams).ok_or_else(no_lines)
    }

    pub(crate) fn end_round(&mut self, round: u32) -> Result<Tally, Error> {
        self.last_round = round;
        self.streams()?.end_round(round).on("send a round of pages from", || Object::Host)
    }

    pub(crate) fn serve(&mut self, serving: Serving, post: Post) -> Result<(), Error> {
        self.stop_serving();
        let lines = self.lines.take().ok_or_else(no_lines)?;
        let started = ServingThread::start(serving, lines, self.last_round.saturating_add(1), post);
        self.serving = Some(started.on("start a thread on", || Object::Host)?);
        Ok(())
    }

    pub(crate) fn stop_serving(&mut self) {
        if let Some(lines) = self.serving.take().and_then(ServingThread::stop) {
            self.lines.get_or_insert(lines);
        }
    }
}

/// A thread that serves must not outlive what it serves from.
impl Drop for Outlet {
    fn drop(&mut self) {
        self.stop_serving();
    }
}

fn no_lines() -> Error {
    Error::invalid("send pages from", Object::Host, "there is no link to send them on")
}
