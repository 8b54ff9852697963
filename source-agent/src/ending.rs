//! How a command ends: its exit code, and the words that say where the tree runs now.

use crate::events::{Event, RunsOn};
use crate::output::Output;
use protocol::source::{State, Why};
use protocol::{Failure, MigrationId, Phase, Refusal};
use std::error::Error;
use std::process::ExitCode;

#[derive(Debug)]
pub(crate) enum Ending {
    Moved,
    /// It could be moved; nothing was touched.
    Movable,
    /// Nothing was touched.
    Refused(Vec<Refusal>),
    /// It runs here, as the operator asked.
    Cancelled,
    /// It runs here.
    Failed(Vec<String>),
    /// It ended here.
    Gone(Vec<String>),
    /// It stands still here.
    InDoubt {
        id: MigrationId,
        chain: Vec<String>,
    },
    /// It runs there, and only we have pages that it lacks; or nobody has.
    PagesMissing {
        id: MigrationId,
        chain: Vec<String>,
    },
}

/// What fails before the machine has begun has touched nothing.
impl<E: Error + 'static> From<E> for Ending {
    fn from(error: E) -> Self {
        Self::Failed(chain(&error))
    }
}

impl Ending {
    /// Of a machine that has come to rest, or is left where it stands.
    pub(crate) fn of(state: State, id: MigrationId) -> Self {
        let phase = state.phase();
        match state {
            State::Movable => Self::Movable,
            State::Refused(refusals) => Self::Refused(refusals),
            State::Kept(Why::Cancelled) => Self::Cancelled,
            State::Kept(Why::Failed(failure)) => Self::Failed(failure.lines().collect()),
            State::Moved => Self::Moved,
            State::Gone(failure) => Self::Gone(failure.lines().collect()),
            State::Stuck(stuck) => Self::InDoubt { id, chain: stuck.failure.lines().collect() },
            State::InDoubt(doubt) => {
                let why = doubt.doubt.as_ref().map(|why| why.lines().collect());
                Self::InDoubt { id, chain: why.unwrap_or_else(|| vec![NO_ANSWER.to_owned()]) }
            }
            State::Serving(_) => Self::PagesMissing { id, chain: vec![NO_LINK.to_owned()] },
            state => Self::left_in(&state, phase, id),
        }
    }

    /// The engine's thread is no more, and with it whatever it traced was let go.
    fn left_in(state: &State, phase: Phase, id: MigrationId) -> Self {
        let chain =
            vec![format!("the engine ended in the {} phase", name(phase)), state.name().to_owned()];
        match state {
            State::Surrendering(_) | State::Awaiting(_) => Self::InDoubt { id, chain },
            State::Relieving(_) | State::Reaping(_) => Self::InDoubt { id, chain },
            _ => Self::Failed(chain),
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Moved | Self::Movable => 0,
            Self::Refused(_) => 3,
            Self::Failed(_) | Self::Gone(_) => 4,
            Self::Cancelled => 5,
            Self::InDoubt { .. } => 6,
            Self::PagesMissing { .. } => 7,
        })
    }

    pub(crate) fn runs_on(&self) -> RunsOn {
        match self {
            Self::Moved | Self::PagesMissing { .. } => RunsOn::Destination,
            Self::Movable | Self::Refused(_) | Self::Cancelled | Self::Failed(_) => RunsOn::Source,
            Self::Gone(_) => RunsOn::Nowhere,
            Self::InDoubt { .. } => RunsOn::Unknown,
        }
    }

    /// Everything but the account of a move that succeeded.
    pub(crate) fn say(&self, output: &Output) {
        for event in self.events() {
            output.event(&event);
        }
        for line in self.lines() {
            output.text(&line);
        }
    }

    fn events(&self) -> Vec<Event> {
        match self {
            Self::Moved | Self::Movable => Vec::new(),
            Self::Refused(refusals) => refusals.iter().map(refusal_event).collect(),
            Self::Cancelled => {
                let chain =
                    vec!["move the tree".to_owned(), "cancelled by the operator".to_owned()];
                vec![Event::Failure { chain, runs_on: self.runs_on() }]
            }
            Self::Failed(chain)
            | Self::Gone(chain)
            | Self::InDoubt { chain, .. }
            | Self::PagesMissing { chain, .. } => {
                vec![Event::Failure { chain: chain.clone(), runs_on: self.runs_on() }]
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self {
            Self::Moved => {}
            Self::Movable => lines.push("Nothing was found that stands in the way.".to_owned()),
            Self::Refused(refusals) => {
                lines.push("It cannot be moved, and nothing was touched:".to_owned());
                lines.extend(refusals.iter().map(|refusal| format!("  {refusal}")));
            }
            Self::Cancelled => lines.push("Cancelled. It runs here as before.".to_owned()),
            Self::Failed(chain) => {
                lines.extend(explained("It was not moved, and runs here as before.", chain));
            }
            Self::Gone(chain) => lines.extend(explained("There is nothing left to move.", chain)),
            Self::InDoubt { id, chain } => {
                lines.extend(explained("It is not known where the tree is to run.", chain));
                lines.push(doubt(*id));
            }
            Self::PagesMissing { id, chain } => {
                lines.extend(explained("It runs on the destination, and lacks pages.", chain));
                lines.push(format!(
                    "It stands still there when it needs one. The pages are here; send them with: \
                     migrate resume {id}"
                ));
            }
        }
        lines
    }
}

const NO_ANSWER: &str = "the destination did not answer";
const NO_LINK: &str = "there is no link to the destination";

/// What to do when nobody can be asked.
fn doubt(id: MigrationId) -> String {
    format!(
        "It stands still here, and must not run while it may run there. Ask the destination again \
         with: migrate resume {id}\nOnly if it can never be asked again, find out by yourself and \
         answer for it: migrate resume {id} --vouch runs-there, or --vouch discarded"
    )
}

fn explained(what: &str, chain: &[String]) -> Vec<String> {
    let why =
        chain.iter().enumerate().map(|(depth, cause)| format!("{}{cause}", "  ".repeat(depth + 1)));
    std::iter::once(what.to_owned()).chain(why).collect()
}

fn refusal_event(refusal: &Refusal) -> Event {
    Event::Refusal {
        object: refusal.object.clone(),
        reason: refusal.reason.clone(),
        advice: refusal.advice.clone(),
    }
}

pub(crate) fn name(phase: Phase) -> String {
    format!("{phase:?}").to_lowercase()
}

/// An error and every cause below it.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    chain
}

/// The tree ended here while the destination lacked pages of it.
pub(crate) fn lost(id: MigrationId, failure: &Failure) -> Ending {
    Ending::PagesMissing { id, chain: failure.lines().collect() }
}
