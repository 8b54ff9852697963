//! What happens to a migration, as its machine is told of it.

use super::{Event, Session};
use crate::bulk::{self, BulkError, BulkStream};
use crate::control::{ControlStream, Link};
use crate::report;
use protocol::Phase;
use protocol::destination::{Doing, Input, State};
use protocol::message::Message;
use std::sync::Arc;
use std::time::Instant;

impl Session {
    /// What an event is to the machine, if it is anything.
    pub(super) fn take(&mut self, event: Event, state: &State) -> Option<Input> {
        match event {
            Event::Control(stream) => self.replace_link(stream),
            Event::Message { link, message, at } => self.heard(link, message, at),
            Event::LinkLost { link, cause } => {
                let link = self.link.take_if(|current| current.number() == link)?;
                link.end();
                Some(Input::Disconnected { cause })
            }
            Event::Bulk(stream) => self.read_bulk(stream, state),
            Event::Faults(stream) => {
                if let Err(error) = self.parts.faults.attach(stream) {
                    tracing::warn!(migration = %self.id, "serve faults: {error}");
                }
                None
            }
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

    fn read_bulk(&self, stream: BulkStream, state: &State) -> Option<Input> {
        let phase = state.phase();
        if let Err(error) = self.parts.gate.join(stream.slices) {
            let failure = report::of(phase, &error);
            return Some(Input::Failed { doing: Doing::Store, failure });
        }
        let events = self.sender.clone();
        let failed = move |error: BulkError| {
            if error.is_lost_link() {
                tracing::info!("{}", report::chain(&error));
                return;
            }
            let doing = if phase == Phase::Lazy { Doing::Fill } else { Doing::Store };
            let failure = error.failure(phase);
            // Fails only when the session has ended.
            let _ = events.blocking_send(Event::Input(Input::Failed { doing, failure }));
        };
        let spawned = bulk::spawn(stream, Arc::clone(&self.parts.gate), failed);
        let error = spawned.err()?;
        let failure = report::of_io(phase, "start a thread on", "this host", &error);
        Some(Input::Failed { doing: Doing::Store, failure })
    }
}
