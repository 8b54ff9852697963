//! What both machines have in common: how a step answers, and how it says that it cannot.

use crate::failure::{Failure, Phase, Side};
use crate::message::Message;
use std::collections::VecDeque;

/// What a step wants done, in this order: the driver sends and does one after the other.
#[derive(Debug)]
pub struct Outbox<A> {
    todo: VecDeque<Todo<A>>,
}

#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "only Hello is large, and it is said once")]
pub enum Todo<A> {
    /// Dropped when there is no link: whoever missed it asks again.
    Send(Message),
    Do(A),
}

impl<A> Default for Outbox<A> {
    fn default() -> Self {
        Self { todo: VecDeque::new() }
    }
}

impl<A> Outbox<A> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn pop(&mut self) -> Option<Todo<A>> {
        self.todo.pop_front()
    }

    /// What is wanted and was not popped yet, in its order.
    pub fn iter(&self) -> impl Iterator<Item = &Todo<A>> {
        self.todo.iter()
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.todo.push_back(Todo::Send(message));
    }

    pub(crate) fn act(&mut self, action: A) {
        self.todo.push_back(Todo::Do(action));
    }
}

/// Whether the other side can be talked to at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    Up,
    Down,
}

/// An input that makes no sense now: the peer broke the protocol, or the driver its promise.
///
/// The state comes back as it was. A driver that got this for a message closes the link and feeds
/// `Disconnected`, which every state knows how to survive.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{input} makes no sense while {name}")]
pub struct Fault<S> {
    pub state: Box<S>,
    pub name: &'static str,
    pub input: String,
}

pub(crate) fn link_lost(side: Side, phase: Phase, cause: String) -> Failure {
    let other = match side {
        Side::Source => "the destination",
        _ => "the source",
    };
    Failure::new(side, phase, "keep the link to", other).because(cause)
}

pub(crate) fn timed_out(side: Side, phase: Phase, state: &str) -> Failure {
    Failure::new(side, phase, "wait for the next step", "of the migration")
        .because(format!("nothing happened for too long while {}", state.to_lowercase()))
}
