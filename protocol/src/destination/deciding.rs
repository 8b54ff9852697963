//! The decision: written down, carried out, told; and told again whenever someone asks.

use super::{
    Action, Doing, Entry, Filling, Input, State, abort, decided, failure, lost, refuse_again,
};
use crate::failure::{Failure, Phase};
use crate::limits::ATTEMPTS_MAX;
use crate::machine::{Fault, Link, Outbox};
use crate::message::{Message, MigrationId, Outcome};

/// The decision is being written down. Nobody is told yet, and nothing is done about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Deciding {
    pub(super) id: MigrationId,
    outcome: Outcome,
    source: Source,
    attempts: u32,
}

/// The decision is being carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Settling {
    pub(super) id: MigrationId,
    outcome: Outcome,
    source: Source,
    attempts: u32,
}

/// What the source is owed once there is something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) link: Link,
    /// It has asked, so it may have been restarted and know nothing of what it still has to push.
    pub(super) asked: bool,
}

/// Nothing of the tree is here, and nothing of this migration will ever run here.
#[derive(Clone, Debug, PartialEq)]
pub struct Discarded {
    pub(super) id: MigrationId,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    pub(super) id: MigrationId,
    outcome: Outcome,
    source: Source,
    doing: Doing,
    pub failure: Failure,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    pub(super) id: MigrationId,
    pub failure: Failure,
}

impl Deciding {
    /// The only place where a decision is taken.
    pub(super) fn start(
        id: MigrationId,
        outcome: Outcome,
        link: Link,
        out: &mut Outbox<Action>,
    ) -> State {
        out.act(Action::Record(Entry::Decided(outcome)));
        let source = Source { link, asked: false };
        State::Deciding(Self { id, outcome, source, attempts: 1 })
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let Self { id, outcome, source, attempts } = self;
        match input {
            Input::Recorded(Entry::Decided(recorded)) if recorded == outcome => {
                Ok(Settling::begin(id, outcome, source, out))
            }
            Input::Failed { doing: Doing::Record, failure } if attempts >= ATTEMPTS_MAX => {
                out.send(abort(failure.clone()));
                Ok(State::Stuck(Stuck { id, outcome, source, doing: Doing::Record, failure }))
            }
            // A line that failed may be in the journal all the same, so it is the same line again.
            Input::Failed { doing: Doing::Record, .. } => {
                out.act(Action::Record(Entry::Decided(outcome)));
                Ok(State::Deciding(Self { attempts: attempts + 1, ..self }))
            }
            other => {
                let source = source
                    .after(id, &other)
                    .ok_or_else(|| State::Deciding(self.clone()).fault(&other))?;
                Ok(State::Deciding(Self { source, ..self }))
            }
        }
    }
}

impl Settling {
    /// A decision that the journal has from before a restart.
    pub(super) fn start(
        id: MigrationId,
        outcome: Outcome,
        link: Link,
        out: &mut Outbox<Action>,
    ) -> State {
        Self::begin(id, outcome, Source { link, asked: false }, out)
    }

    fn begin(id: MigrationId, outcome: Outcome, source: Source, out: &mut Outbox<Action>) -> State {
        out.act(carry_out(outcome));
        State::Settling(Self { id, outcome, source, attempts: 1 })
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let Self { id, outcome, source, .. } = self;
        match (outcome, input) {
            (Outcome::Running, Input::Running { resumed_after_ns }) => {
                out.send(decided(id, Outcome::Running, resumed_after_ns));
                Ok(Filling::start(id, source, resumed_after_ns, out))
            }
            (Outcome::Discarded, Input::Discarded) => {
                out.send(decided(id, Outcome::Discarded, 0));
                Ok(State::Discarded(Discarded { id }))
            }
            (Outcome::Running, Input::TreeLost(failure)) => Ok(Lost::start(id, failure, out)),
            (_, Input::Failed { doing: doing @ (Doing::Run | Doing::Discard), failure }) => {
                Ok(self.again(doing, failure, out))
            }
            (_, other) => {
                let source = source
                    .after(id, &other)
                    .ok_or_else(|| State::Settling(self.clone()).fault(&other))?;
                Ok(State::Settling(Self { source, ..self }))
            }
        }
    }

    fn again(self, doing: Doing, failure: Failure, out: &mut Outbox<Action>) -> State {
        let Self { id, outcome, source, attempts } = self;
        if attempts >= ATTEMPTS_MAX {
            out.send(abort(failure.clone()));
            return State::Stuck(Stuck { id, outcome, source, doing, failure });
        }
        out.act(carry_out(outcome));
        State::Settling(Self { attempts: attempts + 1, ..self })
    }
}

fn carry_out(outcome: Outcome) -> Action {
    match outcome {
        Outcome::Running => Action::Run,
        Outcome::Discarded | Outcome::Unknown => Action::Discard,
    }
}

impl Source {
    /// Whatever else comes in while a decision is on its way has been overtaken by it; the answer
    /// follows by itself. `None` when the input is about another migration.
    fn after(self, id: MigrationId, input: &Input) -> Option<Self> {
        Some(match input {
            Input::Disconnected { .. } => Self { link: Link::Down, ..self },
            Input::Message(Message::Inquire(inquire)) if inquire.migration == id => {
                Self { link: Link::Up, asked: true }
            }
            Input::Message(Message::Handover(handover)) if handover.migration == id => self,
            Input::Message(Message::Inquire(_) | Message::Handover(_) | Message::Offer(_)) => {
                return None;
            }
            _ => self,
        })
    }
}

impl Discarded {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Message(message) if asks_about(&message, id) => {
                out.send(decided(id, Outcome::Discarded, 0));
                Ok(State::Discarded(self))
            }
            Input::Message(Message::Offer(_)) => {
                out.send(refuse_again(id));
                Ok(State::Discarded(self))
            }
            Input::Message(Message::Inquire(_) | Message::Handover(_)) => {
                Err(State::Discarded(self).fault(&input))
            }
            _ => Ok(State::Discarded(self)),
        }
    }
}

/// A question, or a permit that has been overtaken by the answer.
pub(super) fn asks_about(message: &Message, id: MigrationId) -> bool {
    match message {
        Message::Inquire(inquire) => inquire.migration == id,
        Message::Handover(handover) => handover.migration == id,
        _ => false,
    }
}

impl Stuck {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let Self { id, outcome, source, .. } = self;
        match input {
            Input::Retry if self.doing == Doing::Record => {
                out.act(Action::Record(Entry::Decided(outcome)));
                Ok(State::Deciding(Deciding { id, outcome, source, attempts: 1 }))
            }
            Input::Retry => Ok(Settling::begin(id, outcome, source, out)),
            Input::Buried if self.doing == Doing::Run => Ok(Lost::bury(id, out)),
            Input::Message(message) if asks_about(&message, id) => {
                out.send(self.answer());
                let source = Source { link: Link::Up, asked: true };
                Ok(State::Stuck(Self { source, ..self }))
            }
            other => match source.after(id, &other) {
                Some(source) => Ok(State::Stuck(Self { source, ..self })),
                None => Err(State::Stuck(self).fault(&other)),
            },
        }
    }

    /// What cannot be cleared away does not run for that. Everything else stays unsaid.
    fn answer(&self) -> Message {
        match (self.outcome, self.doing) {
            (Outcome::Discarded, Doing::Discard) => decided(self.id, Outcome::Discarded, 0),
            _ => abort(self.failure.clone()),
        }
    }
}

impl Lost {
    pub(super) fn start(id: MigrationId, failure: Failure, out: &mut Outbox<Action>) -> State {
        out.act(Action::Record(Entry::Lost(failure.clone())));
        out.send(lost(failure.clone()));
        State::Lost(Self { id, failure })
    }

    /// The line goes first: an agent that dies in between must not run the tree again.
    pub(super) fn bury(id: MigrationId, out: &mut Outbox<Action>) -> State {
        let failure =
            failure(Phase::Lazy, "go on with", "the tree").because("the operator gave it up here");
        let lost = Self::start(id, failure, out);
        out.act(Action::Discard);
        lost
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(message) if asks_about(&message, self.id) => {
                out.send(lost(self.failure.clone()));
                Ok(State::Lost(self))
            }
            Input::Message(Message::Inquire(_) | Message::Handover(_) | Message::Offer(_)) => {
                Err(State::Lost(self).fault(&input))
            }
            _ => Ok(State::Lost(self)),
        }
    }
}
