//! Pages land in the stopped shell, round after round, until the image makes it whole.

use super::{Action, Deciding, Input, State};
use crate::machine::{Fault, Link, Outbox};
use crate::message::{
    Image, Message, MigrationId, Outcome, Ready as Timings, RoundBegin, RoundStored, Staged,
};

/// Between rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Storing {
    pub(super) id: MigrationId,
    round: u32,
}

/// A round is open, and the source has more of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiving {
    pub(super) id: MigrationId,
    round: u32,
}

/// The source has sent the whole round; the last of it is being stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Landing {
    pub(super) id: MigrationId,
    round: u32,
}

/// The image has come, and with it the last round; pages and building may overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Building {
    pub(super) id: MigrationId,
    round: u32,
    pages: Pages,
    built: Option<Timings>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    Receiving,
    Landing,
    Stored,
}

/// One step from running. Nothing but the permit lets the tree take it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    pub(super) id: MigrationId,
}

impl Storing {
    pub(super) fn start(id: MigrationId, out: &mut Outbox<Action>) -> State {
        out.send(Message::Staged(Staged {}));
        State::Storing(Self { id, round: 0 })
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let Self { id, round } = self;
        match input {
            Input::Message(Message::RoundBegin(RoundBegin { round: begun, layout, .. }))
                if begun == round =>
            {
                out.act(Action::OpenRound { round, layout });
                Ok(State::Receiving(Receiving { id, round }))
            }
            // The last round was stored before the image came; `round` is the one after it.
            Input::Message(Message::Image(image)) if round > 0 => {
                Ok(Building::start(id, round - 1, Pages::Stored, image, out))
            }
            other => State::Storing(self).stop(id, other, out),
        }
    }
}

impl Receiving {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let Self { id, round } = self;
        match input {
            Input::Message(Message::RoundEnd(sent)) if sent.round == round => {
                out.act(Action::AwaitRound(sent));
                Ok(State::Landing(Landing { id, round }))
            }
            Input::Message(Message::Image(image)) => {
                Ok(Building::start(id, round, Pages::Receiving, image, out))
            }
            other => State::Receiving(self).stop(id, other, out),
        }
    }
}

impl Landing {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let Self { id, round } = self;
        match input {
            Input::RoundStored { round: stored, pages } if stored == round => {
                out.send(Message::RoundStored(RoundStored { round, pages }));
                Ok(State::Storing(Storing { id, round: round.saturating_add(1) }))
            }
            Input::Message(Message::Image(image)) => {
                Ok(Building::start(id, round, Pages::Landing, image, out))
            }
            other => State::Landing(self).stop(id, other, out),
        }
    }
}

impl Building {
    fn start(
        id: MigrationId,
        round: u32,
        pages: Pages,
        Image { image, .. }: Image,
        out: &mut Outbox<Action>,
    ) -> State {
        out.act(Action::Build { image });
        State::Building(Self { id, round, pages, built: None })
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let (id, round) = (self.id, self.round);
        match (input, self.pages) {
            (Input::Message(Message::RoundEnd(sent)), Pages::Receiving) if sent.round == round => {
                out.act(Action::AwaitRound(sent));
                Ok(State::Building(Self { pages: Pages::Landing, ..self }))
            }
            (Input::RoundStored { round: stored, pages }, Pages::Landing) if stored == round => {
                out.send(Message::RoundStored(RoundStored { round, pages }));
                Ok(Self { pages: Pages::Stored, ..self }.proceed(out))
            }
            (Input::Built(timings), _) if self.built.is_none() => {
                Ok(Self { built: Some(timings), ..self }.proceed(out))
            }
            (other, _) => State::Building(self).stop(id, other, out),
        }
    }

    fn proceed(self, out: &mut Outbox<Action>) -> State {
        match self.built {
            Some(timings) if self.pages == Pages::Stored => {
                out.send(Message::Ready(timings));
                State::Ready(Ready { id: self.id })
            }
            built => State::Building(Self { built, ..self }),
        }
    }
}

impl Ready {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Message(Message::Handover(handover)) if handover.migration == id => {
                Ok(Deciding::start(id, Outcome::Running, Link::Up, out))
            }
            other => State::Ready(self).stop(id, other, out),
        }
    }
}
