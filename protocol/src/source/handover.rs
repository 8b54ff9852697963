//! Giving the right to run away, and not knowing what became of it.

use super::{Action, Entry, Input, Relieving, Serving, State, Thawing, Why, failure};
use crate::failure::{Failure, Phase, Side};
use crate::machine::{Fault, Link, Outbox, link_lost};
use crate::message::{Abort, Handover, Inquire, Message, MigrationId, Outcome};

/// The surrender is being written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Surrendering {
    pub(super) id: MigrationId,
}

/// The permit was sent; waits for the decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Awaiting {
    id: MigrationId,
}

/// The tree may run on the destination, so it stays frozen here. Asks until it is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct InDoubt {
    id: MigrationId,
    /// It was heard to run there, so no word of the destination brings it back here.
    ran_there: bool,
    /// It ran there, and the destination has said since that it lost it, or knows nothing of it.
    is_lost: bool,
    /// Why no decision came, as far as anyone has said.
    pub doubt: Option<Failure>,
}

impl Surrendering {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Recorded(Entry::Surrendered) => {
                out.send(Message::Handover(Handover { migration: id }));
                Ok(State::Awaiting(Awaiting { id }))
            }
            // The line may or may not be in the journal by now, so only the destination can say.
            Input::Disconnected { cause } => Ok(InDoubt::cut_off(id, cause, out)),
            Input::Failed { failure, .. } => Ok(InDoubt::because(id, failure, Link::Up, out)),
            Input::Message(Message::Decided(decided))
                if decided.migration == id && decided.outcome() == Outcome::Discarded =>
            {
                Ok(discarded(out))
            }
            // The decision follows it.
            Input::Message(Message::Abort(_)) | Input::Cancelled | Input::TreeEnded(_) => {
                Ok(State::Surrendering(self))
            }
            other => Err(State::Surrendering(self).fault(&other)),
        }
    }
}

impl Awaiting {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Message(Message::Decided(decided)) if decided.migration == id => {
                Ok(settle(id, decided.outcome(), out))
            }
            Input::Message(Message::Abort(abort)) => {
                Ok(State::InDoubt(InDoubt::new(id).told_why(abort)))
            }
            Input::Disconnected { cause } => Ok(InDoubt::cut_off(id, cause, out)),
            Input::TimedOut => Ok(InDoubt::start(id, Link::Up, out)),
            Input::Cancelled | Input::TreeEnded(_) => Ok(State::Awaiting(self)),
            other => Err(State::Awaiting(self).fault(&other)),
        }
    }
}

impl InDoubt {
    /// The destination said that it runs there: no word of it brings it back here any more.
    pub fn ran_there(&self) -> bool {
        self.ran_there
    }

    /// And has said since that it is no more, or knows nothing of it: it will say that again.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    pub(super) fn start(id: MigrationId, link: Link, out: &mut Outbox<Action>) -> State {
        Self::new(id).ask(link, out)
    }

    fn new(id: MigrationId) -> Self {
        Self { id, ran_there: false, is_lost: false, doubt: None }
    }

    /// The agent was restarted after it had heard that the tree runs there.
    pub(super) fn recover_running(id: MigrationId, out: &mut Outbox<Action>) -> State {
        Self { ran_there: true, ..Self::new(id) }.ask(Link::Down, out)
    }

    /// The destination was running the tree and no longer answers for it.
    pub(super) fn after_running(id: MigrationId, why: Abort) -> State {
        State::InDoubt(Self { ran_there: true, ..Self::new(id) }.told_why(why))
    }

    /// What was lost there has run there, whether that was heard or not.
    fn told_why(self, abort: Abort) -> Self {
        let is_lost = self.is_lost || abort.is_lost;
        let ran_there = self.ran_there || is_lost;
        Self { ran_there, is_lost, doubt: Some(abort.failure), ..self }
    }

    fn because(id: MigrationId, doubt: Failure, link: Link, out: &mut Outbox<Action>) -> State {
        Self { doubt: Some(doubt), ..Self::new(id) }.ask(link, out)
    }

    fn cut_off(id: MigrationId, cause: String, out: &mut Outbox<Action>) -> State {
        let doubt = link_lost(Side::Source, Phase::Handover, cause);
        Self::because(id, doubt, Link::Down, out)
    }

    fn ask(self, link: Link, out: &mut Outbox<Action>) -> State {
        match link {
            Link::Up => out.send(Message::Inquire(Inquire { migration: self.id })),
            Link::Down => out.act(Action::Reconnect),
        }
        State::InDoubt(self)
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        let id = self.id;
        match input {
            Input::Reconnected => Ok(self.ask(Link::Up, out)),
            Input::TimedOut => Ok(self.ask(Link::Down, out)),
            Input::Message(Message::Decided(decided)) if decided.migration == id => {
                Ok(self.told(decided.outcome(), out))
            }
            // Said by itself to whoever is there, so it may come before the answer.
            Input::Message(Message::Complete(_)) => Ok(Relieving::start(out)),
            // It explains the doubt and does not end it.
            Input::Message(Message::Abort(abort)) => Ok(State::InDoubt(self.told_why(abort))),
            Input::Vouched(outcome) => Ok(self.vouched(outcome, out)),
            Input::Message(_) | Input::Inspected(_) => Err(State::InDoubt(self).fault(&input)),
            // Answers to actions from before the doubt, and a link that is known to be down.
            _ => Ok(State::InDoubt(self)),
        }
    }

    fn told(self, outcome: Outcome, out: &mut Outbox<Action>) -> State {
        if self.ran_there && outcome == Outcome::Discarded {
            return Self::after_running(self.id, forgotten());
        }
        settle(self.id, outcome, out)
    }

    /// The one way out without the destination's word. Whoever answers for it has made sure that
    /// the tree cannot run there, or that it does and is complete.
    fn vouched(self, outcome: Outcome, out: &mut Outbox<Action>) -> State {
        match outcome {
            Outcome::Running => Relieving::start(out),
            Outcome::Discarded => discarded(out),
            Outcome::Unknown => State::InDoubt(self),
        }
    }
}

fn settle(id: MigrationId, outcome: Outcome, out: &mut Outbox<Action>) -> State {
    match outcome {
        Outcome::Running => Serving::start(id, out),
        Outcome::Discarded => discarded(out),
        Outcome::Unknown => State::InDoubt(InDoubt::new(id)),
    }
}

/// The destination has decided, for ever, not to run it.
pub(super) fn discarded(out: &mut Outbox<Action>) -> State {
    let why = failure(Phase::Handover, "hand over", "the tree")
        .because("the destination discarded its copy");
    Thawing::start(Why::Failed(why), out)
}

/// What to make of `Discarded` from a destination that had said `Running`.
pub(super) fn forgotten() -> Abort {
    let failure = failure(Phase::Lazy, "go on with", "the tree on the destination")
        .because("the destination ran it and has no record of that: it was rebooted, or replaced");
    Abort { failure, is_lost: true }
}
