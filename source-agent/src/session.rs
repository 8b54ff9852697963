//! One migration, driven: an input comes in, the machine decides, its answers are sent and done.
//!
//! This file orders the work and holds none of it. Everything comes through one inbox, so nothing
//! that changes the state is raced; sending and dialling are waited for in place, both bounded.

mod course;

use crate::bulk::Moved;
use crate::connection::{Line, Peer};
use crate::ending::{self, Ending, chain};
use crate::engine_thread::EngineThread;
use crate::news::{Inbox, News, Post};
use crate::report::Report;
pub(crate) use course::Course;
use protocol::limits::DECISION_WAIT;
use protocol::source::{Action, Input, State};
use protocol::{Message, MigrationId, Outbox, Outcome, Phase, Todo};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a tree in doubt is asked about before the operator gets the command line back.
const DOUBT_WAIT: Duration = Duration::from_secs(60);
/// The same for a destination that lacks pages and cannot be reached.
const LONELY_WAIT: Duration = Duration::from_secs(600);
/// How often the bar moves.
const IT_ANSWERS: &str =
    "the destination answers for the tree: its word counts, not the operator's";

const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: MigrationId,
    pub(crate) peer: Peer,
    pub(crate) line: Option<Line>,
    pub(crate) engine: EngineThread,
    pub(crate) inbox: Inbox,
    pub(crate) post: Post,
    pub(crate) moved: Moved,
    pub(crate) report: Report,
    /// The operator's answer for a destination that cannot be asked.
    pub(crate) vouched: Option<Outcome>,
    pub(crate) patience: Patience,
    pub(crate) course: Course,
}

/// When a tree whose destination cannot be reached is left as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// After a while, or when the operator wants the command line back: `migrate resume` goes on.
    Operator,
    /// Never: a source agent has nothing better to do.
    Agent,
}

impl Session {
    /// Until the machine has come to rest, or nothing can be done from here.
    pub(crate) async fn run(mut self, mut state: State, out: Outbox<Action>) -> Ending {
        self.report.decides(&out);
        self.report.is_in(&state);
        self.act(out).await;
        while !state.is_final() && !self.gives_up(&state) {
            let input = self.next(&state).await;
            state = self.step(state, input).await;
        }
        self.end(state).await
    }

    async fn step(&mut self, state: State, mut input: Input) -> State {
        if let Input::Message(Message::Staged(_)) = input
            && let Err(cause) = self.open_pages().await
        {
            input = Input::Disconnected { cause };
        }
        self.report.hears(&input, self.line.as_ref().map(Line::rtt).unwrap_or_default());
        self.remember_loss(&state, &input);
        self.explain_stop(&state, &input);
        self.heed_destination(&input);
        let was = state.name();
        let is_message = matches!(input, Input::Message(_));
        let mut out = Outbox::new();
        match state.handle(input, &mut out) {
            Ok(state) => {
                if state.name() != was {
                    (self.course.since, self.course.stops) = (Instant::now(), 0);
                }
                self.report.decides(&out);
                self.report.is_in(&state);
                self.act(out).await;
                state
            }
            Err(fault) => {
                tracing::warn!(%fault, "the conversation makes no sense");
                if is_message {
                    self.lose_line(fault.to_string());
                }
                *fault.state
            }
        }
    }

    /// Sends and does, one after the other.
    async fn act(&mut self, mut out: Outbox<Action>) {
        while let Some(todo) = out.pop() {
            match todo {
                Todo::Send(message) => self.send(message).await,
                Todo::Do(action) => self.perform(action).await,
            }
        }
    }

    /// Without a line it is dropped: whoever missed it asks again.
    async fn send(&mut self, message: Message) {
        self.report.says(&message);
        let Some(line) = &mut self.line else { return };
        if let Err(error) = line.send(message).await {
            self.lose_line(chain(&error).join(": "));
        }
    }

    async fn perform(&mut self, action: Action) {
        self.report.does(&action);
        match action {
            Action::Reconnect => return self.reconnect().await,
            Action::Thaw => self.cut_short(),
            Action::Serve | Action::Push { .. } => {
                if let Err(cause) = self.open_pages().await {
                    self.lose_line(cause);
                }
                // Faults come from now on.
                if let Some(cause) = self.course.faults_lost.take() {
                    self.lose_line(cause);
                }
            }
            _ => {}
        }
        self.engine.perform(action);
    }

    /// Whatever is still being copied is not wanted any more, and must not delay the thaw.
    fn cut_short(&mut self) {
        self.engine.interrupt();
        if let Some(line) = &mut self.line {
            line.cut_pages();
        }
    }

    /// Once a line.
    async fn open_pages(&mut self) -> Result<(), String> {
        let Some(line) = self.line.as_mut().filter(|line| !line.has_pages) else { return Ok(()) };
        let lines = line.open_pages(&self.peer).await;
        self.engine.attach(lines.map_err(|error| chain(&error).join(": "))?);
        Ok(())
    }

    async fn reconnect(&mut self) {
        if let Some(line) = self.line.take() {
            line.abandon();
        }
        if self.course.was_lost_at_once() {
            let cause = "a link that had just been made was lost".to_owned();
            self.course.pending.push_back(Input::Disconnected { cause });
            return;
        }
        let input = match self.dial().await {
            Ok(line) => {
                self.line = Some(line);
                (self.course.remade_at, self.course.faults_lost) = (Some(Instant::now()), None);
                Input::Reconnected
            }
            Err(cause) => {
                self.course.calls_in_vain += 1;
                Input::Disconnected { cause }
            }
        };
        self.course.pending.push_back(input);
    }

    async fn dial(&mut self) -> Result<Line, String> {
        let connection = self.peer.dial().await.map_err(|error| chain(&error).join(": "))?;
        self.course.lines_made += 1;
        let (number, post, moved) = (self.course.lines_made, self.post.clone(), self.moved.clone());
        let line = Line::open(connection, self.id, number, post, moved).await;
        line.map_err(|error| chain(&error).join(": "))
    }

    fn lose_line(&mut self, cause: String) {
        if let Some(line) = self.line.take() {
            tracing::info!(cause, "the link to the destination is lost");
            line.abandon();
            self.course.pending.push_back(Input::Disconnected { cause });
        }
    }

    /// The next thing that the machine wants to know. While pages move, it is patient.
    async fn next(&mut self, state: &State) -> Input {
        if let Some(input) = self.course.pending.pop_front() {
            return input;
        }
        let (mut since, mut moved) = (Instant::now(), self.moved_bytes());
        loop {
            if let Ok(Some(news)) = tokio::time::timeout(TICK, self.inbox.recv()).await
                && let Some(input) = self.read(news, state)
            {
                return input;
            }
            // Before it is found that nobody should wait for this any longer.
            if let Some(input) = self.vouch(state) {
                return input;
            }
            let now_moved = self.moved_bytes();
            self.report.moved(now_moved);
            if now_moved != moved {
                (since, moved) = (Instant::now(), now_moved);
            }
            let back_off = self.course.back_off();
            if state.patience().is_some_and(|patience| since.elapsed() >= patience + back_off) {
                return Input::TimedOut;
            }
            if self.gives_up(state) {
                return Input::Progress;
            }
        }
    }

    fn read(&mut self, news: News, state: &State) -> Option<Input> {
        match news {
            News::Input(input) => return Some(input),
            News::Heard { line, message } if self.is_current(line) => {
                return Some(Input::Message(message));
            }
            News::Lost { line, cause } if self.is_current(line) => {
                self.lose_line(cause);
                return self.course.pending.pop_front();
            }
            // The rounds go on without it, and a tree that needs it may not be long in coming.
            News::FaultsLost { line, cause } if self.is_current(line) => {
                if !matches!(state, State::Serving(_)) {
                    self.course.faults_lost = Some(cause);
                    return None;
                }
                self.lose_line(cause);
                return self.course.pending.pop_front();
            }
            News::Heard { .. } | News::Lost { .. } | News::FaultsLost { .. } => {}
            News::Vouch(_) if self.is_served(state) => self.report.note(IT_ANSWERS),
            News::Vouch(outcome) => self.vouched = Some(outcome),
            News::Ask => {
                (self.course.since, self.course.stops) = (Instant::now(), 0);
                self.course.calls_in_vain = 0;
                let is_waiting = self.line.is_none() && state.patience().is_some();
                return is_waiting.then_some(Input::TimedOut);
            }
            News::Stop => {
                self.course.stops += 1;
                return Some(Input::Cancelled);
            }
            News::Freezes { began, at } => self.report.freezes(began, at),
            News::Step { name, took } => self.report.step(name, took),
        }
        None
    }

    fn is_current(&self, number: u32) -> bool {
        self.line.as_ref().is_some_and(|line| line.number == number)
    }

    fn moved_bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// What an operator has answered holds until the destination answers for the tree itself.
    fn heed_destination(&mut self, input: &Input) {
        let answers = match input {
            Input::Message(Message::Decided(decided)) => decided.outcome() == Outcome::Running,
            Input::Message(Message::Missing(_) | Message::Complete(_)) => true,
            _ => false,
        };
        if answers && self.vouched.take().is_some() {
            self.report.note(IT_ANSWERS);
        }
    }

    fn is_served(&self, state: &State) -> bool {
        matches!(state, State::Serving(_)) && self.line.is_some()
    }

    /// Only for a destination that cannot be reached or does not answer, or that lost the tree.
    fn vouch(&mut self, state: &State) -> Option<Input> {
        let waited = self.course.since.elapsed();
        let is_silent = match state {
            State::InDoubt(doubt) if doubt.is_lost() => true,
            State::InDoubt(_) => self.line.is_none() || waited > DECISION_WAIT,
            State::Serving(_) => self.line.is_none(),
            _ => false,
        };
        if waited.is_zero() || !is_silent {
            return None;
        }
        let outcome = self.vouched.take()?;
        self.course.answered = Some(outcome);
        Some(Input::Vouched(outcome))
    }

    fn gives_up(&self, state: &State) -> bool {
        if self.engine.is_gone() || matches!(state, State::Stuck(_)) {
            return true;
        }
        if !self.is_tiresome(state) {
            return false;
        }
        if self.patience == Patience::Agent {
            self.report.dismiss(&Ending::of(state.clone(), self.id));
        }
        self.patience == Patience::Operator
    }

    /// Whether an operator should not wait any longer.
    fn is_tiresome(&self, state: &State) -> bool {
        let (waited, stops) = (self.course.since.elapsed(), self.course.stops);
        match state {
            // It has said that it is lost there, and says nothing else if it is asked again.
            State::InDoubt(doubt) if doubt.is_lost() => self.vouched.is_none(),
            State::InDoubt(_) => stops > 0 || waited > DOUBT_WAIT,
            State::Serving(_) if self.line.is_none() => stops > 0 || waited > LONELY_WAIT,
            // Too late to cancel; who insists leaves the tree without its pages.
            State::Serving(_) => stops > 1,
            _ => false,
        }
    }

    fn remember_loss(&mut self, state: &State, input: &Input) {
        if let (State::Serving(_), Input::TreeEnded(failure)) = (state, input) {
            self.course.lost = Some(failure.clone());
        }
    }

    fn explain_stop(&self, state: &State, input: &Input) {
        let is_too_late = matches!(state.phase(), Phase::Handover | Phase::Lazy);
        if is_too_late && *input == Input::Cancelled {
            self.report.note("it is too late to cancel: the tree was handed over");
        }
    }

    async fn end(mut self, state: State) -> Ending {
        let has_panicked = self.engine.is_gone() && !state.is_final();
        let mut ending = if has_panicked {
            Ending::after_panic(&state, self.id)
        } else {
            Ending::of(state, self.id)
        };
        if let (Ending::Moved, Some(failure)) = (&ending, &self.course.lost) {
            ending = ending::lost(self.id, failure);
        }
        if let Some(outcome) = self.course.answered {
            ending = ending.after_answer(outcome);
        }
        if let Some(line) = self.line.take() {
            line.close("the source has nothing more to say").await;
        }
        // Its last lines in the journal are written before we say that it is over.
        self.inbox.close();
        let finished = tokio::task::spawn_blocking(move || self.engine.finish()).await;
        if !matches!(finished, Ok(true)) {
            tracing::error!("the engine's thread has panicked");
        }
        self.report.ends(&ending, &self.peer.place.host);
        ending
    }
}
