//! Pre-copy: rounds of pages while the tree runs, until freezing it is worth it.

use super::{Action, Freezing, Input, Plan, State, round_number};
use crate::convergence::{Next, Round, is_last, next};
use crate::machine::{Fault, Outbox};
use crate::message::{Message, RoundBegin, RoundEnd};
use std::time::Duration;

/// The mappings are being scanned for the next round.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    plan: Plan,
    rounds: Vec<Round>,
    /// See [`Next::Withdraw`].
    withdraws: bool,
}

/// Pages of the round are on their way.
#[derive(Clone, Debug, PartialEq)]
pub struct Copying {
    plan: Plan,
    rounds: Vec<Round>,
    /// See [`Next::Withdraw`].
    withdraws: bool,
}

/// Everything was sent; waits until the destination has stored it.
#[derive(Clone, Debug, PartialEq)]
pub struct Landing {
    plan: Plan,
    rounds: Vec<Round>,
    withdraws: bool,
    sent: RoundEnd,
}

/// What was written meanwhile is being counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Measuring {
    plan: Plan,
    rounds: Vec<Round>,
    withdraws: bool,
    sent: RoundEnd,
}

impl Opening {
    /// The first round, or none when every page is to come lazily.
    pub(super) fn start(plan: Plan, out: &mut Outbox<Action>) -> State {
        decide(plan, Vec::new(), out)
    }

    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::RoundOpened { layout } => {
                let round = round_number(self.rounds.len());
                out.send(Message::RoundBegin(RoundBegin { round, layout, more: false }));
                let Self { plan, rounds, withdraws } = self;
                out.act(if withdraws {
                    Action::Withdraw { round }
                } else {
                    Action::CopyRound { round }
                });
                Ok(State::Copying(Copying { plan, rounds, withdraws }))
            }
            other => State::Opening(self).stop(other, out),
        }
    }
}

impl Copying {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::RoundCopied(tally) => {
                let sent = tally.round_end(round_number(self.rounds.len()));
                out.send(Message::RoundEnd(sent));
                let Self { plan, rounds, withdraws } = self;
                Ok(State::Landing(Landing { plan, rounds, withdraws, sent }))
            }
            other => State::Copying(self).stop(other, out),
        }
    }
}

impl Landing {
    pub(super) fn handle(
        self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Message(Message::RoundStored(stored)) if self.is_answer(stored.round) => {
                out.act(Action::Measure);
                let Self { plan, rounds, withdraws, sent } = self;
                Ok(State::Measuring(Measuring { plan, rounds, withdraws, sent }))
            }
            other => State::Landing(self).stop(other, out),
        }
    }

    fn is_answer(&self, round: u32) -> bool {
        round == self.sent.round
    }
}

impl Measuring {
    pub(super) fn handle(
        mut self,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<State, Fault<State>> {
        match input {
            Input::Measured { dirty_pages, held_back_pages, compared_pages, round_ns } => {
                let pages = self.sent.pages;
                self.rounds.push(Round {
                    pages,
                    duration_ns: round_ns,
                    dirty_pages,
                    held_back_pages,
                    compared_pages,
                    withdrew: self.withdraws,
                });
                Ok(decide(self.plan, self.rounds, out))
            }
            other => State::Measuring(self).stop(other, out),
        }
    }
}

fn decide(plan: Plan, rounds: Vec<Round>, out: &mut Outbox<Action>) -> State {
    let round = round_number(rounds.len());
    match next(&plan.goal, &rounds) {
        Next::Round { after_ms, predicted_ns } => {
            let after = Duration::from_millis(after_ms);
            let is_last = is_last(&plan.goal, &rounds);
            out.act(Action::OpenRound { round, after, is_last, predicted_ns });
            State::Opening(Opening { plan, rounds, withdraws: false })
        }
        Next::Withdraw { predicted_ns } => {
            let (after, predicted_ns) = (Duration::ZERO, Some(predicted_ns));
            out.act(Action::OpenRound { round, after, is_last: true, predicted_ns });
            State::Opening(Opening { plan, rounds, withdraws: true })
        }
        Next::Freeze { reason, predicted_ns, lazy } => {
            out.act(Action::Freeze { reason, predicted_ns });
            State::Freezing(Freezing { id: plan.id, round, lazy })
        }
    }
}
