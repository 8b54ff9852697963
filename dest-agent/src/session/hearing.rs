//! What happens to a migration, as its machine is told of it.

use super::{Event, Session};
use crate::bulk::{self, BulkError, BulkStream};
use crate::control::{ControlStream, Link};
use crate::faults::FaultStream;
use crate::report;
use protocol::Phase;
use protocol::destination::{Doing, Input};
use protocol::message::Message;
use std::sync::Arc;
use std::time::Instant;

impl Session {
    /// What an event is to the machine, if it is anything.
    pub(super) fn take(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Control(stream) => self.replace_link(stream),
            Event::Message { link, message, at } => self.heard(link, message, at),
            Event::LinkLost { link, cause } => {
                let link = self.link.take_if(|current| current.number() == link)?;
                link.end();
                Some(Input::Disconnected { cause })
            }
            Event::Bulk(stream) => self.read_bulk(stream),
            Event::Faults(stream) => self.ask_here(stream),
            Event::Judged { input, place } => {
                self.place = place;
                Some(input)
            }
            Event::Input(input) => Some(input),
        }
    }

    fn replace_link(&mut self, stream: ControlStream) -> Option<Input> {
        self.links += 1;
        let link = Link::begin(self.links, stream, self.sender.clone());
        let old = self.link.replace(link)?;
        old.end();
        Some(Input::Disconnected { cause: "the source has come back".to_owned() })
    }

    fn heard(&mut self, link: u64, message: Message, at: Instant) -> Option<Input> {
        let current = self.link.as_mut().filter(|current| current.number() == link)?;
        current.has_spoken = true;
        let named = match &message {
            Message::Offer(offer) => Some(offer.migration),
            Message::Inquire(inquire) => Some(inquire.migration),
            Message::Handover(handover) => Some(handover.migration),
            _ => None,
        };
        if named.is_some_and(|id| id != self.id) {
            self.hang_up();
            let cause = "the source spoke of another migration".to_owned();
            return Some(Input::Disconnected { cause });
        }
        if matches!(message, Message::Handover(_)) {
            self.permitted_at = Some(at);
        }
        Some(Input::Message(message))
    }

    fn read_bulk(&self, stream: BulkStream) -> Option<Input> {
        if let Err(error) = self.parts.gate.join(stream.slices) {
            return Some(BulkError::from(error).input());
        }
        let events = self.sender.clone();
        let failed = move |error: BulkError| {
            if error.is_lost_link() {
                tracing::info!("{}", report::chain(&error));
                return;
            }
            // Fails only when the session has ended.
            let _ = events.blocking_send(Event::Input(error.input()));
        };
        let spawned = bulk::spawn(stream, Arc::clone(&self.parts.gate), failed);
        let error = spawned.err()?;
        let failure = report::of_io(Phase::Rounds, "start a thread on", "this host", &error);
        Some(Input::Failed { doing: Doing::Store, failure })
    }

    fn ask_here(&self, stream: FaultStream) -> Option<Input> {
        let events = self.sender.clone();
        let failed = move |failure| {
            let input = Input::Failed { doing: Doing::Fill, failure };
            // Fails only when the session has ended.
            let _ = events.blocking_send(Event::Input(input));
        };
        let error = self.parts.faults.attach(stream, failed).err()?;
        let failure = report::of_io(Phase::Lazy, "start a thread on", "this host", &error);
        Some(Input::Failed { doing: Doing::Fill, failure })
    }
}
