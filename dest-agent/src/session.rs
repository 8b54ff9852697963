//! One migration: feeds the destination's machine, and has its answers carried out.
//!
//! This file orders the work and holds none of it.

mod acting;
mod hearing;
mod recording;
mod stuck;

use crate::bulk::BulkStream;
use crate::control::{ControlStream, Link};
use crate::engine_thread::EngineThread;
use crate::faults::FaultStream;
use crate::holding::Holding;
use crate::judge::{Admitted, name_of};
use crate::left::Left;
use crate::policy::Place;
use crate::registry::{Agent, Registry};
use crate::report;
use crate::tree::Parts;
use engine::hooks::Hooks;
use link::Fingerprint;
use protocol::destination::{Action, Input, State};
use protocol::message::Message;
use protocol::{Failure, MigrationId, Outbox, Todo};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use stuck::Stuck;
use tokio::sync::mpsc;

/// What can happen to a migration. Also the bound of what waits for its session.
pub const EVENTS_MAX: usize = 64;

/// How long a source may stay on the line after the last word.
const FAREWELL_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub enum Event {
    Control(ControlStream),
    Message {
        link: u64,
        message: Message,
        at: Instant,
    },
    LinkLost {
        link: u64,
        cause: String,
    },
    Bulk(BulkStream),
    Faults(FaultStream),
    /// What a tree was promised, with the judgement.
    Judged {
        input: Input,
        admitted: Option<Admitted>,
    },
    /// Every page of a round is in its place.
    Landed {
        round: u32,
        pages: u64,
    },
    Input(Input),
    /// Nobody leads it any more, and its source has begun anew.
    Abandoned,
    /// Pages that the tree lacks cannot be put into place, or are nowhere.
    PagesLost(Failure),
}

#[derive(Debug)]
pub struct Session {
    pub id: MigrationId,
    pub peer: Fingerprint,
    /// What a CA has certified that the source is called, by the connection that came last. Kept
    /// when that is lost: what was offered on it is judged by what its source was then.
    names: Vec<String>,
    pub agent: Arc<Agent>,
    pub registry: Arc<Registry>,
    pub events: mpsc::Receiver<Event>,
    pub sender: mpsc::Sender<Event>,
    parts: Parts,
    link: Option<Link>,
    links: u64,
    engine: Option<EngineThread>,
    place: Option<Arc<Place>>,
    permitted_at: Option<Instant>,
    /// Pages stored when patience began.
    pages_seen: u64,
    asks_for_the_rest: Arc<AtomicBool>,
    lists_missing: Arc<AtomicBool>,
    /// Its source has asked what has become of it.
    was_asked: bool,
    /// It was decided to run here and is being ended.
    is_given_up: bool,
    stuck: Stuck,
}

impl Session {
    pub fn new(
        id: MigrationId,
        peer: Fingerprint,
        agent: Arc<Agent>,
        registry: Arc<Registry>,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let parts = Parts {
            gate: Arc::default(),
            faults: Arc::default(),
            memory: Arc::default(),
            holding: Arc::default(),
            id,
            scopes: Arc::clone(&agent.scopes),
            rules: Arc::default(),
            left: agent.journal.path(id, "tree"),
            socket: agent.journal.path(id, "sock"),
            hooks: Hooks::beneath(agent.policy.config())
                .and("MIGRATE_ID", id.to_string())
                .and("MIGRATE_SOURCE", peer.to_string()),
        };
        Self {
            id,
            peer,
            names: Vec::new(),
            agent,
            registry,
            events,
            sender,
            parts,
            link: None,
            links: 0,
            engine: None,
            place: None,
            permitted_at: None,
            pages_seen: 0,
            asks_for_the_rest: Arc::default(),
            lists_missing: Arc::default(),
            was_asked: false,
            is_given_up: false,
            stuck: Stuck::default(),
        }
    }

    pub fn holding(&self) -> Arc<Holding> {
        Arc::clone(&self.parts.holding)
    }

    /// What an agent before us has let run, as far as it has left word of it.
    pub fn take_note_of_what_runs(&self) {
        self.parts.holding.decide();
        if let Ok(Some(left)) = Left::read(&self.parts.left) {
            self.parts.holding.hold(left.processes.iter().map(|process| process.pid));
        }
    }

    /// Until everything is said and done. `out` holds what a recovered machine wants first.
    pub async fn run(mut self, mut state: State, mut out: Outbox<Action>) {
        loop {
            state = self.settle(state, &mut out).await;
            if self.is_over(&state) && self.registry.retire(self.id, &self.events) {
                break;
            }
            let input = self.next(&state).await;
            state = self.step(state, input, &mut out);
        }
        tracing::info!(migration = %self.id, state = state.name(), "a migration has ended");
        self.parts.gate.close();
        self.parts.faults.close();
    }

    /// Nobody is on the line, and nothing is left to do.
    fn is_over(&self, state: &State) -> bool {
        use State::{Complete, Declined, Discarded, Listening, Lost};
        self.link.is_none()
            && matches!(state, Complete(_) | Declined(_) | Discarded(_) | Listening(_) | Lost(_))
    }

    /// Does everything that is wanted, in its order.
    async fn settle(&mut self, mut state: State, out: &mut Outbox<Action>) -> State {
        let mut inputs = VecDeque::new();
        loop {
            while let Some(todo) = out.pop() {
                inputs.extend(match todo {
                    Todo::Send(message) => self.send(message).await,
                    Todo::Do(action) => self.perform(action).await,
                });
            }
            match inputs.pop_front() {
                Some(input) => state = self.step(state, input, out),
                None => return state,
            }
        }
    }

    fn step(&mut self, state: State, input: Input, out: &mut Outbox<Action>) -> State {
        let (before, is_message) = (state.name(), matches!(input, Input::Message(_)));
        if let Input::Failed { failure, .. } | Input::TreeLost(failure) = &input {
            let lines: Vec<String> = failure.lines().collect();
            let source = name_of(&self.peer, &self.names);
            tracing::warn!(migration = %self.id, %source, "{}", lines.join(": "));
        }
        let state = match state.handle(input, out) {
            Ok(state) => state,
            Err(fault) => {
                tracing::warn!(migration = %self.id, "{fault}");
                return self.after_fault(*fault.state, is_message, out);
            }
        };
        if state.name() != before {
            tracing::info!(migration = %self.id, "{before} -> {}", state.name());
        }
        state
    }

    /// A source that breaks the protocol loses its link, and nothing but that.
    fn after_fault(&mut self, state: State, is_message: bool, out: &mut Outbox<Action>) -> State {
        let Some(link) = self.link.take_if(|_| is_message) else { return state };
        link.end();
        let cause = "the source said something that makes no sense now".to_owned();
        state.handle(Input::Disconnected { cause }, out).unwrap_or_else(|fault| *fault.state)
    }

    async fn send(&mut self, message: Message) -> Option<Input> {
        let name = message.name();
        let link = self.link.as_mut().filter(|link| link.has_spoken)?;
        let error = link.send(message).await.err()?;
        tracing::info!(migration = %self.id, "send {name}: {}", report::chain(&error));
        self.hang_up();
        Some(Input::Disconnected { cause: report::chain(&error) })
    }

    /// The next input: something that happened, or that nothing did.
    async fn next(&mut self, state: &State) -> Input {
        loop {
            let patience = self.patience(state);
            let event = match tokio::time::timeout(patience, self.events.recv()).await {
                Ok(Some(event)) => event,
                // We have a sender ourselves, so the channel is never closed.
                Ok(None) => return Input::Disconnected { cause: "nobody listens".to_owned() },
                Err(_) => match self.lost_patience(state) {
                    Some(input) => return input,
                    None => continue,
                },
            };
            if let Some(input) = self.take(event) {
                return input;
            }
        }
    }

    fn patience(&mut self, state: &State) -> Duration {
        if matches!(state, State::Stuck(_)) {
            return self.stuck.wait_left(Instant::now());
        }
        self.stuck.is_over();
        state.patience().unwrap_or(FAREWELL_WAIT)
    }

    fn lost_patience(&mut self, state: &State) -> Option<Input> {
        let pages = self.parts.gate.stored_pages();
        if pages != std::mem::replace(&mut self.pages_seen, pages) {
            return Some(Input::Progress);
        }
        match state {
            State::Stuck(_) => {
                self.stuck.is_over();
                Some(Input::Retry)
            }
            State::Complete(_) | State::Declined(_) | State::Discarded(_) | State::Lost(_) => {
                self.link.take()?.end();
                Some(Input::Disconnected { cause: "everything was said".to_owned() })
            }
            _ => state.patience().map(|_| Input::TimedOut),
        }
    }

    fn hang_up(&mut self) {
        self.parts.holding.is_led_by(None);
        if let Some(link) = self.link.take() {
            link.end();
        }
    }
}
