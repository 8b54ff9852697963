//! From the first word to a shell of stopped stubs.

use super::{Action, Deciding, Entry, Input, State, Storing, abort};
use crate::failure::Side;
use crate::machine::{Fault, Link, Outbox, timed_out};
use crate::message::{Accept, Message, MigrationId, Offer, Outcome, Refusal, Refuse};
use crate::version::{Hello, common_protocol};

/// Waits for the first word of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Listening {
    pub(super) hello: Hello,
}

/// Waits for an offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeted {
    hello: Hello,
}

/// What stands against the offer is being found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Judging {
    pub(super) id: MigrationId,
}

/// Nothing was accepted, so nothing has to be discarded. Asked about it, it decides all the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Declined {
    /// `None` when it did not come to an offer.
    pub(super) id: Option<MigrationId>,
}

/// That there may be something to discard is being written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepting {
    pub(super) id: MigrationId,
    accept: Accept,
}

/// Waits for the layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub(super) id: MigrationId,
}

/// The shell is being built.
#[derive(Clone, Debug, PartialEq)]
pub struct Staging {
    pub(super) id: MigrationId,
}

impl Listening {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::Hello(source)) => Ok(self.greeted(&source, out)),
            Input::Message(Message::Inquire(inquire)) => Ok(unknown(inquire.migration, out)),
            Input::Disconnected { .. } => Ok(State::Listening(self)),
            Input::TimedOut => Ok(tired(&State::Listening(self), out)),
            other => Err(State::Listening(self).fault(&other)),
        }
    }

    /// A source of another version learns by our `Hello` what we speak, and nothing that it says
    /// after that means anything here.
    fn greeted(self, source: &Hello, out: &mut Outbox<Action>) -> State {
        out.send(Message::Hello(self.hello.clone()));
        match common_protocol(source, &self.hello) {
            Some(_) => State::Greeted(Greeted { hello: self.hello }),
            None => State::Declined(Declined { id: None }),
        }
    }
}

/// Nothing is known of it: either nothing was accepted, or the line about it died with the kernel.
/// Both ways it does not run here, and from now on it never will.
fn unknown(id: MigrationId, out: &mut Outbox<Action>) -> State {
    Deciding::start(id, Outcome::Discarded, Link::Up, out)
}

/// Whoever opened this stream said nothing for too long.
fn tired(state: &State, out: &mut Outbox<Action>) -> State {
    out.send(abort(timed_out(Side::Destination, state.phase(), state.name())));
    State::Declined(Declined { id: None })
}

impl Greeted {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::Offer(offer)) => Ok(Self::offered(offer, out)),
            Input::Message(Message::Inquire(inquire)) => Ok(unknown(inquire.migration, out)),
            Input::Message(Message::Abort(_)) | Input::Disconnected { .. } => {
                Ok(State::Declined(Declined { id: None }))
            }
            Input::TimedOut => Ok(tired(&State::Greeted(self), out)),
            other => Err(State::Greeted(self).fault(&other)),
        }
    }

    fn offered(offer: Offer, out: &mut Outbox<Action>) -> State {
        let id = offer.migration;
        out.act(Action::Judge(offer));
        State::Judging(Judging { id })
    }
}

impl Judging {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Judged { refusals, monotonic_ns, boottime_ns } => {
                let accept = Accept { monotonic_ns, boottime_ns };
                Ok(Self::judged(id, refusals, accept, out))
            }
            Input::Failed { failure, .. } => {
                out.send(abort(failure));
                Ok(State::Declined(Declined { id: Some(id) }))
            }
            Input::Message(Message::Abort(_)) | Input::Disconnected { .. } => {
                Ok(State::Declined(Declined { id: Some(id) }))
            }
            other => State::Judging(self).stop(id, other, out),
        }
    }

    fn judged(
        id: MigrationId,
        refusals: Vec<Refusal>,
        accept: Accept,
        out: &mut Outbox<Action>,
    ) -> State {
        if !refusals.is_empty() {
            out.send(Message::Refuse(Refuse::new(refusals)));
            return State::Declined(Declined { id: Some(id) });
        }
        out.act(Action::Record(Entry::Accepted));
        State::Accepting(Accepting { id, accept })
    }
}

impl Declined {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::Inquire(inquire))
                if self.id.is_none_or(|id| id == inquire.migration) =>
            {
                Ok(unknown(inquire.migration, out))
            }
            Input::Message(Message::Inquire(_)) => Err(State::Declined(self).fault(&input)),
            // Said before the source heard that it was declined.
            _ => Ok(State::Declined(self)),
        }
    }
}

impl Accepting {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Recorded(Entry::Accepted) => {
                out.send(Message::Accept(self.accept));
                Ok(State::Accepted(Accepted { id }))
            }
            other => State::Accepting(self).stop(id, other, out),
        }
    }
}

impl Accepted {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Message(Message::Stage(stage)) => {
                out.act(Action::BuildShell(stage));
                Ok(State::Staging(Staging { id }))
            }
            other => State::Accepted(self).stop(id, other, out),
        }
    }
}

impl Staging {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::ShellBuilt => Ok(Storing::start(id, out)),
            other => State::Staging(self).stop(id, other, out),
        }
    }
}
