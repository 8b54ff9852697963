//! How a migration ends on the source: before the surrender for any reason, after it only by the
//! destination's decision; and the tree is let run again.

use super::{Action, Doing, Entry, Input, Reaping, State, abort, failure};
use crate::failure::{Failure, Phase, Side};
use crate::limits::ATTEMPTS_MAX;
use crate::machine::{Fault, Outbox, link_lost, timed_out};
use crate::message::{Inquire, Message, MigrationId, Outcome};

/// Why a tree stayed.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    Cancelled,
    Failed(Failure),
}

/// The tree is being let run again.
#[derive(Clone, Debug, PartialEq)]
pub struct Thawing {
    why: Why,
    attempts: u32,
    /// After a restart: the destination has not heard yet that the move will not go on.
    untold: Option<MigrationId>,
    /// And is asked: what it says of a tree that it runs is about one that went with our kernel,
    /// and with it the line of the journal that says so. Else there is nothing it could say.
    is_asked: bool,
}

/// The tree could not be thawed; or, without a `why`, the original could not be ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    pub(super) why: Option<Why>,
    pub failure: Failure,
}

impl State {
    /// Ends a migration that has not been surrendered, if the input is a reason to.
    pub(super) fn stop(self, input: Input, out: &mut Outbox<Action>) -> Result<Self, Fault<Self>> {
        let phase = self.phase();
        let why = match input {
            Input::Cancelled => Why::Cancelled,
            Input::Failed { failure, .. } => Why::Failed(failure),
            Input::Disconnected { cause } => Why::Failed(link_lost(Side::Source, phase, cause)),
            Input::TimedOut => Why::Failed(timed_out(Side::Source, phase, self.name())),
            Input::Message(Message::Abort(abort)) => Why::Failed(abort.failure),
            Input::Message(Message::Decided(d)) if d.outcome() == Outcome::Discarded => {
                Why::Failed(failure(phase, "move the tree to", "the destination, which gave up"))
            }
            Input::TreeEnded(failure) => return Ok(self.tree_ended(failure, out)),
            other => return Err(self.fault(&other)),
        };
        out.send(abort(why.failure(phase)));
        if self.has_touched() { Ok(Thawing::start(why, out)) } else { Ok(Self::Kept(why)) }
    }

    fn tree_ended(self, failure: Failure, out: &mut Outbox<Action>) -> Self {
        out.send(abort(failure.clone()));
        if self.has_touched() {
            out.act(Action::Record(Entry::Gone));
        }
        Self::Gone(failure)
    }

    fn has_touched(&self) -> bool {
        !matches!(self, Self::Greeting(_) | Self::Inspecting(_) | Self::Offering(_))
    }
}

impl Thawing {
    pub fn why(&self) -> &Why {
        &self.why
    }

    pub(super) fn start(why: Why, out: &mut Outbox<Action>) -> State {
        out.act(Action::Thaw);
        State::Thawing(Self { why, attempts: 1, untold: None, is_asked: false })
    }

    /// After a restart: the tree goes on here at once, and then the destination is asked, because
    /// one that is asked discards what it was not yet given. Without that it would keep the
    /// process ids until it has lost its patience, and refuse the next move.
    pub(super) fn recover(id: MigrationId, why: Why, out: &mut Outbox<Action>) -> State {
        out.act(Action::Thaw);
        out.act(Action::Reconnect);
        State::Thawing(Self { why, attempts: 1, untold: Some(id), is_asked: true })
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Thawed => {
                out.act(Action::Record(Entry::Kept));
                Ok(State::Kept(self.why))
            }
            Input::TreeEnded(failure) => {
                out.act(Action::Record(Entry::Gone));
                Ok(State::Gone(failure))
            }
            Input::Failed { doing: Doing::Thaw, failure } => Ok(self.again(failure, out)),
            Input::Message(Message::Decided(_)) if self.is_asked => Ok(State::Thawing(self)),
            Input::Reconnected => {
                let asked = self.untold.map(|migration| Message::Inquire(Inquire { migration }));
                asked.into_iter().for_each(|message| out.send(message));
                Ok(State::Thawing(Self { untold: None, ..self }))
            }
            other => State::Thawing(self).at_rest(other),
        }
    }

    fn again(self, failure: Failure, out: &mut Outbox<Action>) -> State {
        if self.attempts >= ATTEMPTS_MAX {
            return State::Stuck(Stuck { why: Some(self.why), failure });
        }
        out.act(Action::Thaw);
        State::Thawing(Self { attempts: self.attempts + 1, ..self })
    }
}

impl Stuck {
    /// The tree runs on the destination with every page, and only its frozen original is left
    /// here; otherwise the tree is to run here and could not be let go on.
    pub fn runs_there(&self) -> bool {
        self.why.is_none()
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match (input, self.why) {
            (Input::Retry, Some(why)) => Ok(Thawing::start(why, out)),
            (Input::Retry, None) => Ok(Reaping::start(out)),
            (_, why) => Ok(State::Stuck(Self { why, ..self })),
        }
    }
}

impl Why {
    /// The failure as both operators see it; a cancellation is told as one.
    pub fn failure(&self, phase: Phase) -> Failure {
        match self {
            Self::Cancelled => {
                failure(phase, "move", "the tree").because("cancelled by the operator")
            }
            Self::Failed(failure) => failure.clone(),
        }
    }
}
