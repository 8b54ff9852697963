//! Why there are no more copies.

use super::words::{Said, Word};
use crate::report;
use protocol::{Failure, Phase, Refusal, Side};
use source_agent::copies::LineError;
use std::error::Error;

#[derive(Debug)]
pub(super) enum Stop {
    Refused(Vec<Refusal>),
    Failed(Failure),
    /// Nobody is there who could be told.
    Lost(LineError),
}

impl From<LineError> for Stop {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Link(_) | LineError::Ended => Self::Lost(error),
            error => Self::Failed(report::of(Phase::Unknown, &error)),
        }
    }
}

/// What belongs to another moment, or ends a copy.
impl From<Word> for Stop {
    fn from(word: Word) -> Self {
        match word {
            Word::Refused(refusals) => refused(refusals),
            Word::Failed(chain) => {
                let failure = Failure::new(Side::Destination, Phase::Unknown, "start", "a copy");
                Self::Failed(chain.into_iter().fold(failure, Failure::because))
            }
            Word::Judged(_) | Word::Waits | Word::Runs { .. } | Word::Whole => {
                stopped("it spoke out of turn")
            }
        }
    }
}

pub(super) fn refused(refusals: Vec<Said>) -> Stop {
    Stop::Refused(refusals.into_iter().map(Refusal::from).collect())
}

pub(super) fn engine(error: &engine::Error) -> Stop {
    Stop::Failed(report::of_engine(Phase::Unknown, error))
}

pub(super) fn failed(action: &str, error: &dyn Error) -> Stop {
    Stop::Failed(report::because(Phase::Unknown, action, "a copy", &report::chain(error)))
}

pub(super) fn stopped(cause: &str) -> Stop {
    Stop::Failed(report::because(Phase::Unknown, "start", "a copy", cause))
}
