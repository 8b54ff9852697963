//! The tree runs here, while some of its pages are still on the source.

use super::deciding::{Source, asks_about};
use super::{Action, Doing, Entry, Input, Lost, State, decided, refuse_again, trouble};
use crate::failure::{Failure, Phase};
use crate::machine::{Fault, Link, Outbox};
use crate::message::{Complete, Message, MigrationId, Missing, Outcome};

/// Without a link, or with a source that has lost the pages, it starves: it runs on until it
/// touches what is missing, and then stands still rather than read zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct Filling {
    pub(super) id: MigrationId,
    link: Link,
    resumed_after_ns: u64,
    /// Why pages do not come, as far as is known.
    pub trouble: Option<Failure>,
}

/// That nothing is missing any more is being written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Completing {
    pub(super) id: MigrationId,
    resumed_after_ns: u64,
    complete: Complete,
}

/// Every page is here, and the tree needs the source no more. Asked, it says so again for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Completed {
    pub(super) id: MigrationId,
    resumed_after_ns: u64,
    pub complete: Complete,
    source_is_done: bool,
}

impl Filling {
    pub(super) fn start(
        id: MigrationId,
        source: Source,
        resumed_after_ns: u64,
        out: &mut Outbox<Action>,
    ) -> State {
        out.act(Action::Fill);
        if source.asked && source.link == Link::Up {
            out.act(Action::ListMissing);
        }
        State::Filling(Self { id, link: source.link, resumed_after_ns, trouble: None })
    }

    pub(super) fn is_starving(&self) -> bool {
        self.link == Link::Down || self.trouble.is_some()
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Message(message) => self.told(message, out),
            Input::Filled(complete) => {
                out.act(Action::Record(Entry::Complete(complete)));
                let resumed_after_ns = self.resumed_after_ns;
                Ok(State::Completing(Completing { id, resumed_after_ns, complete }))
            }
            // A list for a source that has gone would reach the next one before the decision does.
            Input::MissingListed { runs } if self.link == Link::Up => {
                out.send(Message::Missing(Missing { runs, more: false }));
                Ok(State::Filling(self))
            }
            Input::Disconnected { cause } => {
                let trouble = Some(trouble(Phase::Lazy, cause));
                Ok(State::Filling(Self { link: Link::Down, trouble, ..self }))
            }
            Input::Failed { doing: Doing::Fill, failure } => {
                Ok(State::Filling(Self { trouble: Some(failure), ..self }))
            }
            Input::TreeLost(failure) => Ok(Lost::start(id, failure, out)),
            Input::Buried => Ok(Lost::bury(id, out)),
            _ => Ok(State::Filling(self)),
        }
    }

    fn told(self, message: Message, out: &mut Outbox<Action>) -> Result<State, Fault<State>> {
        match message {
            message if asks_about(&message, self.id) => Ok(self.asked(out)),
            Message::PushDone(_) => {
                out.act(Action::PushEnded);
                Ok(State::Filling(self))
            }
            Message::Abort(abort) => {
                Ok(State::Filling(Self { trouble: Some(abort.failure), ..self }))
            }
            Message::Offer(_) => {
                out.send(refuse_again(self.id));
                Ok(State::Filling(self))
            }
            // It heard from an agent before us, which could not write it down, that every page is
            // here; so nothing will be found missing.
            Message::Done(_) => Ok(State::Filling(self)),
            other => Err(State::Filling(self).fault(&Input::Message(other))),
        }
    }

    fn asked(self, out: &mut Outbox<Action>) -> State {
        out.send(decided(self.id, Outcome::Running, self.resumed_after_ns));
        out.act(Action::ListMissing);
        State::Filling(Self { link: Link::Up, trouble: None, ..self })
    }
}

impl Completing {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let Self { id, resumed_after_ns, complete } = self;
        match input {
            // Without the line, an agent that dies now finds nothing missing and says so again.
            Input::Recorded(Entry::Complete(_)) | Input::Failed { doing: Doing::Record, .. } => {
                out.send(Message::Complete(complete));
                Ok(Completed::start(id, resumed_after_ns, complete))
            }
            Input::Message(message) if asks_about(&message, id) => {
                out.send(decided(id, Outcome::Running, resumed_after_ns));
                Ok(State::Completing(self))
            }
            Input::Message(Message::Inquire(_) | Message::Handover(_) | Message::Offer(_)) => {
                Err(State::Completing(self).fault(&input))
            }
            _ => Ok(State::Completing(self)),
        }
    }
}

impl Completed {
    pub(super) fn start(id: MigrationId, resumed_after_ns: u64, complete: Complete) -> State {
        State::Complete(Self { id, resumed_after_ns, complete, source_is_done: false })
    }

    /// Nothing of the tree is left on the source either.
    pub fn source_is_done(&self) -> bool {
        self.source_is_done
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::Done(_)) => {
                Ok(State::Complete(Self { source_is_done: true, ..self }))
            }
            Input::Message(message) if asks_about(&message, self.id) => {
                out.send(decided(self.id, Outcome::Running, self.resumed_after_ns));
                out.send(Message::Complete(self.complete));
                Ok(State::Complete(self))
            }
            Input::Message(Message::Offer(_)) => {
                out.send(refuse_again(self.id));
                Ok(State::Complete(self))
            }
            Input::Message(Message::Inquire(_) | Message::Handover(_)) => {
                Err(State::Complete(self).fault(&input))
            }
            _ => Ok(State::Complete(self)),
        }
    }
}
