//! What happens to a migration, as its machine is told of it.

use super::{Event, Session};
use crate::bulk::{self, BulkError, BulkStream};
use crate::control::{ControlStream, Link};
use crate::engine_thread::Order;
use crate::faults::FaultStream;
use crate::judge::Admitted;
use crate::report;
use protocol::destination::{Doing, Input};
use protocol::message::Message;
use protocol::version::{Hello, common_protocol};
use protocol::{Failure, Phase};
use std::sync::Arc;
use std::time::Instant;

impl Session {
    /// What an event is to the machine, if it is anything.
    pub(super) fn take(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Control(stream) => self.replace_link(stream),
            Event::Message { link, message, at } => self.heard(link, message, at),
            Event::LinkLost { link, cause } => {
                self.link.as_ref().filter(|current| current.number() == link)?;
                self.hang_up();
                Some(Input::Disconnected { cause })
            }
            Event::Bulk(stream) => self.read_bulk(stream),
            Event::Faults(stream) => self.ask_here(stream),
            Event::Judged { input, admitted } => {
                self.admit(admitted);
                Some(input)
            }
            Event::Landed { round, pages } => {
                self.order(Doing::Store, Order::Tidy { round, pages })
            }
            // A tree that is being ended misses nothing any more, and has not been completed by that.
            Event::Input(Input::Filled(_)) if self.is_given_up => None,
            Event::Input(input) => Some(input),
            Event::Abandoned => self.abandon(),
            Event::PagesLost(failure) => self.give_up(failure),
        }
    }

    fn admit(&mut self, admitted: Option<Admitted>) {
        let Some(Admitted { place, rules }) = admitted else { return };
        self.place = Some(place);
        if self.parts.rules.set(rules).is_err() {
            tracing::error!(migration = %self.id, "a tree was judged twice");
        }
    }

    /// What was decided meanwhile stays decided.
    fn abandon(&mut self) -> Option<Input> {
        if self.parts.holding.is_decided() {
            return None;
        }
        self.hang_up();
        let cause = "nobody leads it any more, and its source has begun anew".to_owned();
        Some(Input::Disconnected { cause })
    }

    /// A tree that starves for ever, without a word, is worse than one that is dead: its original
    /// still stands on the source. Before the decision nothing runs that could starve.
    fn give_up(&mut self, failure: Failure) -> Option<Input> {
        match self.parts.holding.is_decided() {
            true => {
                self.is_given_up = true;
                self.order(Doing::Fill, Order::GiveUp { failure })
            }
            false => Some(Input::Failed { doing: Doing::Fill, failure }),
        }
    }

    fn replace_link(&mut self, stream: ControlStream) -> Option<Input> {
        self.links += 1;
        self.parts.holding.is_led_by(Some(stream.connection.clone()));
        self.names = stream.connection.names().to_vec();
        let link = Link::begin(self.links, stream, self.sender.clone());
        let old = self.link.replace(link)?;
        old.end();
        Some(Input::Disconnected { cause: "the source has come back".to_owned() })
    }

    fn heard(&mut self, link: u64, message: Message, at: Instant) -> Option<Input> {
        let current = self.link.as_mut().filter(|current| current.number() == link)?;
        current.has_spoken = true;
        if let Message::Hello(hello) = &message {
            self.warn_of_another_version(hello);
        }
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
        self.was_asked |= matches!(message, Message::Inquire(_));
        if matches!(message, Message::Handover(_)) {
            self.permitted_at = Some(at);
        }
        Some(Input::Message(message))
    }

    /// The machine turns such a source away; the operator should know why.
    fn warn_of_another_version(&self, source: &Hello) {
        let ours = &self.agent.hello;
        if common_protocol(source, ours).is_none() {
            let [theirs, ours] = [source, ours].map(|h| (h.protocol_min, h.protocol_max));
            tracing::warn!(
                migration = %self.id,
                "host {} speaks protocol {} to {}, and this host {} to {}",
                source.host.hostname, theirs.0, theirs.1, ours.0, ours.1,
            );
        }
    }

    fn read_bulk(&self, stream: BulkStream) -> Option<Input> {
        let pass = match self.parts.gate.join(stream.slices) {
            Ok(pass) => pass,
            Err(error) => return Some(BulkError::from(error).input()),
        };
        let events = self.sender.clone();
        let failed = move |error: BulkError| {
            if error.is_lost_link() {
                tracing::info!("{}", report::chain(&error));
                return;
            }
            // Fails only when the session has ended.
            let _ = events.blocking_send(error.event());
        };
        let spawned = bulk::spawn(stream, Arc::clone(&self.parts.gate), pass, failed);
        let error = spawned.err()?;
        let failure = report::of_io(Phase::Rounds, "start a thread on", "this host", &error);
        Some(Input::Failed { doing: Doing::Store, failure })
    }

    fn ask_here(&self, stream: FaultStream) -> Option<Input> {
        let events = self.sender.clone();
        let failed = move |failure| {
            // Fails only when the session has ended.
            let _ = events.blocking_send(Event::PagesLost(failure));
        };
        let error = self.parts.faults.attach(stream, failed).err()?;
        let failure = report::of_io(Phase::Lazy, "start a thread on", "this host", &error);
        Some(Input::Failed { doing: Doing::Fill, failure })
    }
}
