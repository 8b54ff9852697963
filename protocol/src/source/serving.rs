//! The tree runs on the destination; here its frozen original still has pages that it lacks.

use super::handover::{discarded, forgotten};
use super::{Action, Doing, Entry, InDoubt, Input, State, Stuck, abort};
use crate::failure::Failure;
use crate::limits;
use crate::machine::{Fault, Link, Outbox};
use crate::message::{Done, Inquire, Message, MigrationId, Outcome, PushDone};
use std::time::Duration;

/// A lost link is no failure here: the destination keeps what it has and waits, and so does this.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    id: MigrationId,
    link: Link,
}

/// That the destination has every page is being written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Relieving {}

/// The frozen original is being ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Reaping {
    attempts: u32,
}

impl Serving {
    pub(super) fn start(id: MigrationId, out: &mut Outbox<Action>) -> State {
        out.act(Action::Record(Entry::RunsThere));
        out.act(Action::Serve);
        State::Serving(Self { id, link: Link::Up })
    }

    pub(super) fn patience(&self) -> Duration {
        match self.link {
            Link::Up => limits::LAZY_WAIT,
            Link::Down => limits::RECONNECT_WAIT,
        }
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(message) => self.told(message, out),
            Input::Pushed => {
                out.send(Message::PushDone(PushDone {}));
                Ok(State::Serving(self))
            }
            Input::Reconnected => Ok(self.ask(out)),
            Input::TimedOut if self.link == Link::Up => Ok(self.ask(out)),
            // The attempt failed, or this is what was known; the next one follows in its time.
            Input::Disconnected { .. } | Input::Failed { doing: Doing::Serve, .. }
                if self.link == Link::Down =>
            {
                Ok(State::Serving(self))
            }
            Input::Disconnected { .. }
            | Input::TimedOut
            | Input::Failed { doing: Doing::Serve, .. } => Ok(self.reconnect(out)),
            Input::TreeEnded(failure) => Ok(lost(failure, out)),
            Input::Vouched(Outcome::Running) if self.link == Link::Down => {
                Ok(Relieving::start(out))
            }
            Input::Vouched(Outcome::Discarded) if self.link == Link::Down => Ok(discarded(out)),
            Input::Recorded(_) | Input::Failed { .. } | Input::Cancelled => {
                Ok(State::Serving(self))
            }
            other => Err(State::Serving(self).fault(&other)),
        }
    }

    fn told(self, message: Message, out: &mut Outbox<Action>) -> Result<State, Fault<State>> {
        match message {
            Message::Complete(_) => Ok(Relieving::start(out)),
            Message::Missing(missing) => {
                out.act(Action::Push { missing: missing.runs });
                Ok(State::Serving(self))
            }
            Message::Decided(decided) if decided.migration == self.id => {
                Ok(self.decided(decided.outcome()))
            }
            Message::Abort(abort) => Ok(InDoubt::after_running(self.id, abort)),
            other => Err(State::Serving(self).fault(&Input::Message(other))),
        }
    }

    fn decided(self, outcome: Outcome) -> State {
        match outcome {
            Outcome::Running | Outcome::Unknown => State::Serving(self),
            Outcome::Discarded => InDoubt::after_running(self.id, forgotten()),
        }
    }

    /// The answer is the decision again, and what is still missing.
    fn ask(self, out: &mut Outbox<Action>) -> State {
        out.send(Message::Inquire(Inquire { migration: self.id }));
        State::Serving(Self { link: Link::Up, ..self })
    }

    fn reconnect(self, out: &mut Outbox<Action>) -> State {
        out.act(Action::Reconnect);
        State::Serving(Self { link: Link::Down, ..self })
    }
}

/// The original died with pages that the destination may lack. It is told, and is on its own.
fn lost(failure: Failure, out: &mut Outbox<Action>) -> State {
    out.send(abort(failure));
    out.act(Action::Record(Entry::Moved));
    State::Moved
}

impl Relieving {
    pub(super) fn start(out: &mut Outbox<Action>) -> State {
        out.act(Action::Record(Entry::Relieved));
        State::Relieving(Self {})
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            // Without the line, an agent that dies now asks the destination once more.
            Input::Recorded(Entry::Relieved) | Input::Failed { doing: Doing::Record, .. } => {
                Ok(Reaping::start(out))
            }
            _ => Ok(State::Relieving(self)),
        }
    }
}

impl Reaping {
    pub(super) fn start(out: &mut Outbox<Action>) -> State {
        out.act(Action::Reap);
        State::Reaping(Self { attempts: 1 })
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Reaped | Input::TreeEnded(_) => {
                out.send(Message::Done(Done {}));
                out.act(Action::Record(Entry::Moved));
                Ok(State::Moved)
            }
            Input::Failed { doing: Doing::Reap, failure } => Ok(self.again(failure, out)),
            _ => Ok(State::Reaping(self)),
        }
    }

    fn again(self, failure: Failure, out: &mut Outbox<Action>) -> State {
        if self.attempts >= limits::ATTEMPTS_MAX {
            return State::Stuck(Stuck { why: None, failure });
        }
        out.act(Action::Reap);
        State::Reaping(Self { attempts: self.attempts + 1 })
    }
}
