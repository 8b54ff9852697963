//! From the first word to a shell on the destination: nothing of the tree is touched.

use super::{Action, Entry, Input, Inspection, Opening, Plan, State, abort, failure};
use crate::failure::Phase;
use crate::machine::{Fault, Outbox};
use crate::message::{Lazy, Message, Offer, Refusal, Stage};
use crate::version::{Hello, What, agree, common_protocol, lacking};

/// Waits for the destination's `Hello`.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    plan: Plan,
    hello: Hello,
}

/// The inventory is being made. What is known to stand against the move is kept, so that the
/// operator sees all of it at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspecting {
    plan: Plan,
    destination: Hello,
    refusals: Vec<Refusal>,
}

/// Waits for the destination's judgement, even if the source alone knows enough to refuse.
#[derive(Clone, Debug, PartialEq)]
pub struct Offering {
    plan: Plan,
    refusals: Vec<Refusal>,
}

/// The layout is being written.
#[derive(Clone, Debug, PartialEq)]
pub struct Describing {
    plan: Plan,
}

/// Waits for the shell to be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Staging {
    plan: Plan,
}

impl Greeting {
    pub(super) fn start(plan: Plan, hello: Hello, out: &mut Outbox<Action>) -> Self {
        out.send(Message::Hello(hello.clone()));
        Self { plan, hello }
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::Hello(destination)) => Ok(self.greeted(destination, out)),
            other => State::Greeting(self).stop(other, out),
        }
    }

    fn greeted(mut self, destination: Hello, out: &mut Outbox<Action>) -> State {
        let mismatches = agree(&self.hello, &destination).err().unwrap_or_default();
        let mut refusals: Vec<_> =
            mismatches.iter().map(|mismatch| mismatch.refusal(&destination)).collect();
        if common_protocol(&self.hello, &destination).is_none() {
            return refused(refusals, out);
        }
        refusals.extend(self.settle_laziness(&destination));
        out.act(Action::Inspect { destination: Box::new(destination.clone()) });
        State::Inspecting(Inspecting { plan: self.plan, destination, refusals })
    }

    /// Without userfaultfd(2) pages cannot come lazily: that is refused only if it was asked for.
    fn settle_laziness(&mut self, destination: &Hello) -> Option<Refusal> {
        if destination.host.features.iter().any(|feature| feature == "userfaultfd") {
            return None;
        }
        if self.plan.goal.lazy == Lazy::Always {
            let host = format!("host {}", destination.host.hostname);
            let reason = "has no userfaultfd, so pages cannot come lazily";
            return Some(Refusal::new(host, reason, "Move without `--lazy always`."));
        }
        self.plan.goal.lazy = Lazy::Never;
        None
    }
}

impl Inspecting {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Inspected(inspection) => Ok(self.inspected(inspection, out)),
            other => State::Inspecting(self).stop(other, out),
        }
    }

    fn inspected(mut self, found: Inspection, out: &mut Outbox<Action>) -> State {
        let kinds = lacking(What::Kind, &found.kinds, &self.destination);
        let aspects = lacking(What::Aspect, &found.aspects, &self.destination);
        let mismatches = kinds.iter().chain(&aspects);
        self.refusals.extend(mismatches.map(|mismatch| mismatch.refusal(&self.destination)));
        self.refusals.extend(found.refusals);
        out.send(Message::Offer(Offer {
            migration: self.plan.id,
            inventory: found.inventory,
            more: false,
            memory_bytes: found.memory_bytes,
            process_count: found.process_count,
            thread_count: found.thread_count,
            lazy: self.plan.goal.lazy.into(),
            compress: self.plan.compress,
        }));
        State::Offering(Offering { plan: self.plan, refusals: self.refusals })
    }
}

impl Offering {
    pub(super) fn handle(
        mut self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::Refuse(refuse)) => {
                self.refusals.extend(refuse.refusals);
                Ok(State::Refused(self.refusals))
            }
            Input::Message(Message::Accept(_)) if !self.refusals.is_empty() => {
                Ok(refused(self.refusals, out))
            }
            Input::Message(Message::Accept(_)) if self.plan.only_check => {
                let why = failure(Phase::Offer, "go on with", "the migration");
                out.send(abort(why.because("it was only to be checked")));
                Ok(State::Movable)
            }
            Input::Message(Message::Accept(destination)) => {
                out.act(Action::Record(Entry::Opened));
                out.act(Action::Describe { destination });
                Ok(State::Describing(Describing { plan: self.plan }))
            }
            other => State::Offering(self).stop(other, out),
        }
    }
}

impl Describing {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Recorded(Entry::Opened) => Ok(State::Describing(self)),
            Input::Described { layout, monotonic_offset_ns, boottime_offset_ns } => {
                let more = false;
                let stage = Stage { layout, more, monotonic_offset_ns, boottime_offset_ns };
                out.send(Message::Stage(stage));
                Ok(State::Staging(Staging { plan: self.plan }))
            }
            other => State::Describing(self).stop(other, out),
        }
    }
}

impl Staging {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::Staged(_)) => Ok(Opening::start(self.plan, out)),
            other => State::Staging(self).stop(other, out),
        }
    }
}

fn refused(refusals: Vec<Refusal>, out: &mut Outbox<Action>) -> State {
    let why = failure(Phase::Offer, "move", "the tree")
        .because(format!("{} objects stand against it", refusals.len()));
    out.send(abort(why));
    State::Refused(refusals)
}
