//! What the machine wants done, and by whom.

use super::{Event, Session};
use crate::engine_thread::{EngineThread, Order};
use crate::judge::{Offered, judge};
use crate::lazy;
use crate::report;
use engine::clocks::Clocks;
use protocol::Phase;
use protocol::destination::{Action, Doing, Input};
use protocol::message::{Complete, Offer};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Session {
    pub(super) async fn perform(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Judge(offer) => {
                self.judge(offer);
                None
            }
            Action::Record(entry) => Some(self.record(entry).await),
            Action::BuildShell(stage) => {
                if let Err(failure) = self.note_what_is_staged() {
                    return Some(Input::Failed { doing: Doing::BuildShell, failure });
                }
                let offsets = Clocks {
                    monotonic_ns: stage.monotonic_offset_ns,
                    boottime_ns: stage.boottime_offset_ns,
                };
                self.order(Doing::BuildShell, Order::Stage { layout: stage.layout, offsets })
            }
            Action::OpenRound { round, layout } => {
                self.order(Doing::Store, Order::Open { round, layout })
            }
            Action::AwaitRound(sent) => {
                self.answer_when_landed(sent.round);
                None
            }
            Action::Build { image } => self.order(Doing::Build, Order::Build { image }),
            Action::Run => {
                let since = self.permitted_at;
                self.order(Doing::Run, Order::Run { since })
            }
            Action::Fill => self.fill(),
            Action::ListMissing => {
                self.list_missing();
                None
            }
            Action::PushEnded => {
                self.ask_for_the_rest();
                None
            }
            Action::Discard => {
                self.place = None;
                // At once: the engine may be waiting for pages.
                self.parts.gate.close();
                self.order(Doing::Discard, Order::Discard)
            }
        }
    }

    fn judge(&self, offer: Offer) {
        let (agent, gate) = (Arc::clone(&self.agent), Arc::clone(&self.parts.gate));
        let (events, peer, names) = (self.sender.clone(), self.peer, self.names.clone());
        let others = self.registry.holders_beside(self.id);
        tokio::task::spawn_blocking(move || {
            let offered = Offered { offer: &offer, peer, names, others };
            let (input, admitted) = judge(offered, &agent.policy, gate);
            // Fails only when the session has ended.
            let _ = events.blocking_send(Event::Judged { input, admitted });
        });
    }

    pub(super) fn order(&mut self, doing: Doing, order: Order) -> Option<Input> {
        let failed = |cause: &str| {
            let failure = report::because(Phase::Unknown, "work on", "the tree", cause);
            Some(Input::Failed { doing, failure })
        };
        if self.engine.is_none() {
            match EngineThread::start(self.parts.clone(), self.sender.clone()) {
                Ok(engine) => self.engine = Some(engine),
                Err(error) => return failed(&error.to_string()),
            }
        }
        let result = self.engine.as_ref()?.order(order);
        result.err().and_then(|gone| failed(&gone.to_string()))
    }

    /// The engine answers, once it has tidied up after the round.
    fn answer_when_landed(&self, round: u32) {
        let (gate, events) = (Arc::clone(&self.parts.gate), self.sender.clone());
        tokio::spawn(async move {
            if gate.landed(round).await {
                let pages = gate.stored_pages();
                // Fails only when the session has ended.
                let _ = events.send(Event::Landed { round, pages }).await;
            }
        });
    }

    fn fill(&self) -> Option<Input> {
        self.sync_soon(true);
        let Some(memory) = self.parts.memory.get() else {
            return Some(Input::Filled(Complete::default()));
        };
        self.parts.gate.open_push(Arc::clone(memory));
        let (memory, gate) = (Arc::clone(memory), Arc::clone(&self.parts.gate));
        let events = self.sender.clone();
        tokio::task::spawn_blocking(move || {
            let event = match lazy::wait_until_filled(&memory, &gate) {
                None => return,
                Some(Ok(complete)) => Event::Input(Input::Filled(complete)),
                Some(Err(error)) => Event::PagesLost(report::of_engine(Phase::Lazy, &error)),
            };
            // Fails only when the session has ended.
            let _ = events.blocking_send(event);
        });
        None
    }

    /// One at a time, however often the source asks: the list that is being made answers all.
    fn list_missing(&self) {
        if self.lists_missing.swap(true, Ordering::AcqRel) {
            return;
        }
        let listing = Arc::clone(&self.lists_missing);
        let (memory, events) = (self.parts.memory.get().cloned(), self.sender.clone());
        tokio::task::spawn_blocking(move || {
            // Before looking: who asks from here on is told of what is missing from here on.
            listing.store(false, Ordering::Release);
            let runs = lazy::missing(memory.as_ref()).into();
            // Fails only when the session has ended.
            let _ = events.blocking_send(Event::Input(Input::MissingListed { runs }));
        });
    }

    /// One at a time, however often the source says that it has pushed everything.
    fn ask_for_the_rest(&self) {
        let Some(memory) = self.parts.memory.get().cloned() else { return };
        if self.asks_for_the_rest.swap(true, Ordering::AcqRel) {
            return;
        }
        let (gate, faults) = (Arc::clone(&self.parts.gate), Arc::clone(&self.parts.faults));
        let asking = Arc::clone(&self.asks_for_the_rest);
        tokio::spawn(async move {
            lazy::wait_for_push(&gate, &memory).await;
            let ask = move || lazy::ask_for_the_rest(&memory, &faults, &gate);
            // Fails only when this agent ends.
            let _ = tokio::task::spawn_blocking(ask).await;
            asking.store(false, Ordering::Release);
        });
    }
}
