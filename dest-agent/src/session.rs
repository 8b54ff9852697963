//! One migration: feeds the destination's machine, and has its answers carried out.
//!
//! This file orders the work and holds none of it.

use crate::bulk::{self, BulkStream};
use crate::control::{ControlStream, Link};
use crate::engine_thread::{EngineThread, Order};
use crate::faults::FaultStream;
use crate::judge::judge;
use crate::lazy;
use crate::left::Left;
use crate::policy::Place;
use crate::registry::{Agent, Registry};
use crate::report;
use crate::tree::{Parts, forget};
use engine::clocks::Clocks;
use link::Fingerprint;
use protocol::destination::{Action, Doing, Entry, Input, State};
use protocol::message::{Complete, Message};
use protocol::{Failure, MigrationId, Outbox, Outcome, Phase, Todo};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// What can happen to a migration. Also the bound of what waits for its session.
pub const EVENTS_MAX: usize = 64;

/// How long a source may stay on the line after the last word.
const FAREWELL_WAIT: Duration = Duration::from_secs(60);
/// How often what is stuck is tried again: a disk that was full may have room by now.
const STUCK_WAIT: Duration = Duration::from_secs(30);

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
    /// The room that was promised for a tree, with the judgement.
    Judged {
        input: Input,
        place: Option<Arc<Place>>,
    },
    Input(Input),
}

#[derive(Debug)]
pub struct Session {
    pub id: MigrationId,
    pub peer: Fingerprint,
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
            left: agent.journal.path(id, "tree"),
            socket: agent.journal.path(id, "sock"),
        };
        Self {
            id,
            peer,
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
            tracing::warn!(migration = %self.id, "{}", lines.join(": "));
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
        self.link.take().map(Link::end);
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
            if let Some(input) = self.take(event, state) {
                return input;
            }
        }
    }

    fn patience(&self, state: &State) -> Duration {
        match state {
            State::Stuck(_) => STUCK_WAIT,
            _ => state.patience().unwrap_or(FAREWELL_WAIT),
        }
    }

    fn lost_patience(&mut self, state: &State) -> Option<Input> {
        let pages = self.parts.gate.stored_pages();
        if pages != std::mem::replace(&mut self.pages_seen, pages) {
            return Some(Input::Progress);
        }
        match state {
            State::Stuck(_) => Some(Input::Retry),
            State::Complete(_) | State::Declined(_) | State::Discarded(_) | State::Lost(_) => {
                let link = self.link.take()?;
                link.end();
                Some(Input::Disconnected { cause: "everything was said".to_owned() })
            }
            _ => state.patience().map(|_| Input::TimedOut),
        }
    }

    /// What an event is to the machine, if it is anything.
    fn take(&mut self, event: Event, state: &State) -> Option<Input> {
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
            self.link.take().map(Link::end);
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
        let failed = move |error: bulk::BulkError| {
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

    async fn perform(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Judge(offer) => {
                let (agent, gate) = (Arc::clone(&self.agent), Arc::clone(&self.parts.gate));
                let events = self.sender.clone();
                tokio::task::spawn_blocking(move || {
                    let (input, place) = judge(&offer, &agent.policy, gate);
                    let _ = events.blocking_send(Event::Judged { input, place });
                });
                None
            }
            Action::Record(entry) => Some(self.record(entry).await),
            Action::BuildShell(stage) => {
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

    fn order(&mut self, doing: Doing, order: Order) -> Option<Input> {
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

    async fn record(&mut self, entry: Entry) -> Input {
        let doing = Doing::Record;
        if entry == Entry::Decided(Outcome::Running)
            && let Err(failure) = self.make_it_outlive_us().await
        {
            return Input::Failed { doing, failure };
        }
        if let Err(error) = self.agent.journal.append(self.id, self.peer, &entry) {
            return Input::Failed { doing, failure: report::of(Phase::Handover, &error) };
        }
        if matches!(entry, Entry::Complete(_) | Entry::Lost(_)) {
            self.place = None;
            forget(&self.parts.left);
        }
        if entry != Entry::Decided(Outcome::Running) {
            self.sync_soon(false);
        }
        Input::Recorded(entry)
    }

    async fn make_it_outlive_us(&mut self) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        if let Some(Input::Failed { failure, .. }) =
            self.order(Doing::Record, Order::OutliveUs { answer })
        {
            return Err(failure);
        }
        answered.await.unwrap_or_else(|_| {
            let cause = "the thread that works on it is gone";
            Err(report::because(Phase::Handover, "guard", "the tree", cause))
        })
    }

    /// Where nobody waits for it.
    fn sync_soon(&self, has_run: bool) {
        let (agent, id, left) = (Arc::clone(&self.agent), self.id, self.parts.left.clone());
        tokio::task::spawn_blocking(move || {
            if has_run && let Err(error) = Left::note_that_it_has_run(&left) {
                tracing::warn!(migration = %id, "write {}: {error}", left.display());
            }
            if let Err(error) = agent.journal.sync(id) {
                tracing::warn!(migration = %id, "{}", report::chain(&error));
            }
        });
    }

    fn answer_when_landed(&self, round: u32) {
        let (gate, events) = (Arc::clone(&self.parts.gate), self.sender.clone());
        tokio::spawn(async move {
            if gate.landed(round).await {
                let pages = gate.stored_pages();
                let input = Input::RoundStored { round, pages };
                // Fails only when the session has ended.
                let _ = events.send(Event::Input(input)).await;
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
            let input = match lazy::wait_until_filled(&memory, &gate) {
                None => return,
                Some(Ok(complete)) => Input::Filled(complete),
                Some(Err(error)) => {
                    let failure = report::of_engine(Phase::Lazy, &error);
                    Input::Failed { doing: Doing::Fill, failure }
                }
            };
            // Fails only when the session has ended.
            let _ = events.blocking_send(Event::Input(input));
        });
        None
    }

    fn list_missing(&self) {
        let (memory, events) = (self.parts.memory.get().cloned(), self.sender.clone());
        tokio::task::spawn_blocking(move || {
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
