//! The freeze, up to the moment when the destination could let the tree run.

use super::{Action, Entry, Input, State, Surrendering};
use crate::machine::{Fault, Outbox};
use crate::message::{Image, Message, MigrationId, RoundBegin};
use bytes::Bytes;

/// Threads are being stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Freezing {
    pub(super) id: MigrationId,
    pub(super) round: u32,
    pub(super) lazy: bool,
}

/// The rest of the pages and the image are on their way, in either order.
#[derive(Clone, Debug, PartialEq)]
pub struct Finishing {
    id: MigrationId,
    round: u32,
    copied: bool,
    captured: bool,
}

/// Everything was sent; waits until the destination is one step from letting the tree run.
#[derive(Clone, Debug, PartialEq)]
pub struct Building {
    id: MigrationId,
}

impl Freezing {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Frozen { layout } => Ok(self.frozen(layout, out)),
            other => State::Freezing(self).stop(other, out),
        }
    }

    fn frozen(self, layout: Bytes, out: &mut Outbox<Action>) -> State {
        let Self { id, round, lazy } = self;
        out.send(Message::RoundBegin(RoundBegin { round, layout, more: false }));
        out.act(Action::CopyRest { round, lazy });
        out.act(Action::Capture);
        State::Finishing(Finishing { id, round, copied: false, captured: false })
    }
}

impl Finishing {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::RoundCopied(tally) if !self.copied => {
                out.send(Message::RoundEnd(tally.round_end(self.round)));
                Ok(Self { copied: true, ..self }.proceed())
            }
            Input::Captured { image } if !self.captured => {
                out.send(Message::Image(Image { image, more: false }));
                Ok(Self { captured: true, ..self }.proceed())
            }
            Input::Message(Message::RoundStored(stored))
                if self.copied && stored.round == self.round =>
            {
                Ok(State::Finishing(self))
            }
            other => State::Finishing(self).stop(other, out),
        }
    }

    fn proceed(self) -> State {
        if self.copied && self.captured {
            State::Building(Building { id: self.id })
        } else {
            State::Finishing(self)
        }
    }
}

impl Building {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::RoundStored(_)) => Ok(State::Building(self)),
            Input::Message(Message::Ready(_)) => {
                out.act(Action::Record(Entry::Surrendered));
                Ok(State::Surrendering(Surrendering { id: self.id }))
            }
            other => State::Building(self).stop(other, out),
        }
    }
}
