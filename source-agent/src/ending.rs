//! How a command ends: its exit code, and the words that say where the tree runs now.

mod words;

use crate::events::{Event, RunsOn};
use crate::output::Output;
use protocol::source::{State, Why};
use protocol::{Failure, MigrationId, Outcome, Phase, Refusal};
use std::error::Error;
use words::{
    FORGOTTEN, GIVEN_UP, GONE, IN_DOUBT, KEPT_HERE, MISSING, NOT_ENDED, NOT_LET_GO, STANDS_STILL,
    and_then, cancelled, doubt, end, failed, forget, let_go, may_run_there, refused, send, wanted,
};

/// What was to be done: the same failure is told differently of a move that was never meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Move,
    Check,
    Dump,
    Clone,
    Restore,
}

#[derive(Debug)]
pub(crate) enum Ending {
    Moved,
    /// What was left here is ended, because the operator has said so; nobody else has.
    GivenUp,
    /// It runs here again, because the operator has said so.
    KeptHere,
    /// It could be moved; nothing was touched.
    Movable,
    /// Nothing was touched.
    Refused(Vec<Refusal>),
    /// It runs here, as the operator asked.
    Cancelled,
    /// It runs here.
    Failed(Vec<String>),
    /// It runs here, and one more copy of it may run on that host.
    MayRunThere {
        host: String,
        chain: Vec<String>,
    },
    /// It ended here.
    Gone(Vec<String>),
    /// It stands still here.
    InDoubt {
        id: MigrationId,
        chain: Vec<String>,
    },
    /// It ran there; what stands still here is older than that.
    Forgotten {
        id: MigrationId,
        chain: Vec<String>,
    },
    /// It is to run here, and some of it may still stand still.
    NotLetGo {
        id: MigrationId,
        chain: Vec<String>,
    },
    /// It was to be stored, and some of it may still stand still.
    StandsStill(Vec<String>),
    /// It runs there, and only we have pages that it lacks; or nobody has.
    PagesMissing {
        id: MigrationId,
        chain: Vec<String>,
    },
    /// It runs there with every page, and its frozen original is still here.
    NotEnded {
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
        match state {
            State::Movable => Self::Movable,
            State::Refused(refusals) => Self::Refused(refusals),
            State::Kept(Why::Cancelled) => Self::Cancelled,
            State::Kept(Why::Failed(failure)) => Self::Failed(failure.lines().collect()),
            State::Moved => Self::Moved,
            State::Gone(failure) => Self::Gone(failure.lines().collect()),
            State::Stuck(stuck) => {
                let chain = stuck.failure.lines().collect();
                if stuck.runs_there() {
                    Self::NotEnded { id, chain }
                } else {
                    Self::NotLetGo { id, chain }
                }
            }
            State::InDoubt(doubt) => {
                let why = doubt.doubt.as_ref().map(|why| why.lines().collect());
                let unanswered = || vec![NO_ANSWER.to_owned()];
                match (doubt.ran_there(), why) {
                    (true, None) => Self::PagesMissing { id, chain: unanswered() },
                    (true, Some(chain)) => Self::Forgotten { id, chain },
                    (false, why) => Self::InDoubt { id, chain: why.unwrap_or_else(unanswered) },
                }
            }
            State::Serving(_) => Self::PagesMissing { id, chain: vec![NOT_COMPLETE.to_owned()] },
            state => Self::after_panic(&state, id),
        }
    }

    /// The engine's thread is no more, and with it whatever it traced was let go; but what had
    /// been surrendered stops before its first step.
    pub(crate) fn after_panic(state: &State, id: MigrationId) -> Self {
        let phase = name(state.phase());
        let chain = vec![format!("the engine failed in the {phase} phase; this is a bug")];
        match state {
            State::Surrendering(_) | State::Awaiting(_) => Self::InDoubt { id, chain },
            State::InDoubt(doubt) if !doubt.ran_there() => Self::InDoubt { id, chain },
            State::InDoubt(_) | State::Serving(_) => Self::PagesMissing { id, chain },
            State::Relieving(_) | State::Reaping(_) => Self::NotEnded { id, chain },
            State::Stuck(stuck) if stuck.runs_there() => Self::NotEnded { id, chain },
            State::Thawing(_) | State::Stuck(_) => Self::NotLetGo { id, chain },
            _ => Self::Failed(chain),
        }
    }

    /// The operator has answered for the destination, which has said nothing of the kind.
    pub(crate) fn after_answer(self, outcome: Outcome) -> Self {
        match (self, outcome) {
            (Self::Moved, Outcome::Running) => Self::GivenUp,
            (Self::Failed(_), Outcome::Discarded) => Self::KeptHere,
            (ending, _) => ending,
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Moved | Self::GivenUp | Self::KeptHere | Self::Movable => 0,
            Self::Refused(_) => 3,
            Self::Failed(_) | Self::MayRunThere { .. } | Self::Gone(_) => 4,
            Self::Cancelled => 5,
            Self::InDoubt { .. }
            | Self::Forgotten { .. }
            | Self::NotLetGo { .. }
            | Self::StandsStill(_) => 6,
            Self::PagesMissing { .. } | Self::NotEnded { .. } => 7,
        }
    }

    /// What was being done and every cause, of one that is no success.
    pub(crate) fn chain(self) -> Vec<String> {
        match self {
            Self::Failed(chain)
            | Self::MayRunThere { chain, .. }
            | Self::StandsStill(chain)
            | Self::Gone(chain)
            | Self::InDoubt { chain, .. }
            | Self::Forgotten { chain, .. }
            | Self::NotLetGo { chain, .. }
            | Self::PagesMissing { chain, .. }
            | Self::NotEnded { chain, .. } => chain,
            Self::Cancelled => vec!["cancelled by the operator".to_owned()],
            _ => Vec::new(),
        }
    }

    /// Something is left to be done, by us or by another agent after us.
    pub(crate) fn is_unsettled(&self) -> bool {
        matches!(self.code(), 6 | 7)
    }

    pub(crate) fn runs_on(&self) -> RunsOn {
        match self {
            Self::Moved | Self::PagesMissing { .. } | Self::NotEnded { .. } => RunsOn::Destination,
            Self::Movable
            | Self::KeptHere
            | Self::Refused(_)
            | Self::Cancelled
            | Self::MayRunThere { .. }
            | Self::Failed(_) => RunsOn::Source,
            Self::Gone(_) => RunsOn::Nowhere,
            Self::GivenUp
            | Self::InDoubt { .. }
            | Self::Forgotten { .. }
            | Self::NotLetGo { .. }
            | Self::StandsStill(_) => RunsOn::Unknown,
        }
    }

    /// Everything but the account of a move that succeeded.
    pub(crate) fn say(&self, output: &Output, purpose: Purpose) {
        for event in self.events(purpose) {
            output.event(&event);
        }
        for line in self.lines(purpose) {
            output.text(&line);
        }
    }

    fn events(&self, purpose: Purpose) -> Vec<Event> {
        let runs_on = match purpose {
            Purpose::Restore => RunsOn::Nowhere,
            Purpose::Move | Purpose::Check | Purpose::Dump | Purpose::Clone => self.runs_on(),
        };
        let failure = |chain| vec![Event::Failure { chain, runs_on }];
        match self {
            Self::Moved | Self::Movable => Vec::new(),
            Self::GivenUp => vec![Event::Note { text: GIVEN_UP.to_owned() }],
            Self::KeptHere => vec![Event::Note { text: KEPT_HERE.to_owned() }],
            Self::Refused(refusals) => refusals.iter().map(refusal_event).collect(),
            Self::Cancelled => {
                let what = wanted(purpose).to_owned();
                failure(vec![what, "cancelled by the operator".to_owned()])
            }
            Self::MayRunThere { host, chain } => {
                let note = Event::Note { text: may_run_there(host) };
                failure(chain.clone()).into_iter().chain([note]).collect()
            }
            Self::Failed(chain)
            | Self::StandsStill(chain)
            | Self::Gone(chain)
            | Self::InDoubt { chain, .. }
            | Self::Forgotten { chain, .. }
            | Self::NotLetGo { chain, .. }
            | Self::PagesMissing { chain, .. }
            | Self::NotEnded { chain, .. } => failure(chain.clone()),
        }
    }

    fn lines(&self, purpose: Purpose) -> Vec<String> {
        match self {
            Self::Moved => Vec::new(),
            Self::GivenUp => vec![GIVEN_UP.to_owned()],
            Self::KeptHere => vec![KEPT_HERE.to_owned()],
            Self::Movable => vec!["Nothing was found that stands in the way.".to_owned()],
            Self::Refused(refusals) => {
                let what = refused(purpose).to_owned();
                let why = refusals.iter().map(|refusal| format!("  {refusal}"));
                std::iter::once(what).chain(why).collect()
            }
            Self::Cancelled => vec![cancelled(purpose).to_owned()],
            Self::Failed(chain) => explained(failed(purpose), chain),
            Self::MayRunThere { host, chain } => explained(&may_run_there(host), chain),
            Self::Gone(chain) => explained(GONE, chain),
            Self::StandsStill(chain) => explained(STANDS_STILL, chain),
            Self::InDoubt { id, chain } => and_then(explained(IN_DOUBT, chain), doubt(*id)),
            Self::Forgotten { id, chain } => and_then(explained(FORGOTTEN, chain), forget(*id)),
            Self::NotLetGo { id, chain } => and_then(explained(NOT_LET_GO, chain), let_go(*id)),
            Self::PagesMissing { id, chain } => and_then(explained(MISSING, chain), send(*id)),
            Self::NotEnded { id, chain } => and_then(explained(NOT_ENDED, chain), end(*id)),
        }
    }
}

const NO_ANSWER: &str = "the destination did not answer";
const NOT_COMPLETE: &str = "the destination has not said that it has every page";

fn explained(what: &str, chain: &[String]) -> Vec<String> {
    let why =
        chain.iter().enumerate().map(|(depth, cause)| format!("{}{cause}", "  ".repeat(depth + 1)));
    std::iter::once(what.to_owned()).chain(why).collect()
}

/// `reason` is a sentence of its own: whoever shows it need not put it together.
pub(crate) fn refusal_event(Refusal { object, reason, advice }: &Refusal) -> Event {
    let (object, advice) = (object.clone(), advice.clone());
    Event::Refusal { reason: format!("{object} {reason}."), object, advice }
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

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::source::{Doing, Entry, Input};
    use protocol::{Outbox, Side};

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    fn recovered(last: Entry, inputs: Vec<Input>) -> State {
        let out = &mut Outbox::new();
        let state = State::recover(ID, last, out);
        inputs.into_iter().fold(state, |state, input| state.handle(input, out).unwrap())
    }

    fn failure() -> Failure {
        Failure::new(Side::Source, Phase::Done, "let go", "thread 7")
    }

    fn stuck(last: Entry, doing: Doing) -> State {
        let failed = || Input::Failed { doing, failure: failure() };
        let state = recovered(last, vec![failed(), failed(), failed()]);
        assert_eq!(state.name(), "Stuck");
        state
    }

    /// Its exit code, and what it says first.
    fn told(ending: &Ending) -> (u8, String) {
        (ending.code(), ending.lines(Purpose::Move)[0].clone())
    }

    #[test]
    fn a_tree_that_could_not_be_let_go_is_not_said_to_run() {
        for ending in [
            Ending::of(stuck(Entry::Opened, Doing::Thaw), ID),
            Ending::of(recovered(Entry::Opened, vec![]), ID),
        ] {
            assert_eq!(told(&ending), (6, NOT_LET_GO.to_owned()));
            assert!(ending.lines(Purpose::Move).last().unwrap().contains("migrate resume"));
            assert_eq!(ending.runs_on(), RunsOn::Unknown);
        }
    }

    #[test]
    fn an_original_that_could_not_be_ended_is_no_doubt() {
        for ending in [
            Ending::of(stuck(Entry::Relieved, Doing::Reap), ID),
            Ending::after_panic(&recovered(Entry::Relieved, vec![]), ID),
        ] {
            assert_eq!(told(&ending), (7, NOT_ENDED.to_owned()));
            assert_eq!(ending.runs_on(), RunsOn::Destination);
        }
    }

    #[test]
    fn after_a_panic_it_is_said_where_it_runs() {
        let doubt = Ending::after_panic(&recovered(Entry::Surrendered, vec![]), ID);
        assert_eq!(told(&doubt), (6, IN_DOUBT.to_owned()));
        let there = Ending::after_panic(&recovered(Entry::RunsThere, vec![]), ID);
        assert_eq!(told(&there), (7, MISSING.to_owned()));
    }

    #[test]
    fn a_check_that_fails_does_not_speak_of_a_move() {
        let lines = Ending::Failed(vec!["reach hostb".into()]).lines(Purpose::Check);
        assert_eq!(lines, ["It could not be checked. Nothing was touched.", "  reach hostb"]);
    }

    #[test]
    fn a_copy_that_may_run_is_not_said_not_to() {
        let (host, chain) = ("hostb".to_owned(), vec!["the link is gone".to_owned()]);
        let ending = Ending::MayRunThere { host, chain };
        let lines = ending.lines(Purpose::Clone).join("\n");
        assert!(
            lines.contains("may run on hostb") && lines.contains("the link is gone"),
            "{lines}"
        );
        assert!(!lines.contains("not cloned"), "{lines}");
        assert_eq!((ending.code(), ending.runs_on()), (4, RunsOn::Source));
    }

    #[test]
    fn a_refusal_event_stands_by_itself() {
        let refusal = Refusal::new("file /x", "does not exist there", "Install it.");
        let Event::Refusal { object, reason, advice } = refusal_event(&refusal) else { panic!() };
        assert_eq!(object, "file /x");
        assert_eq!(reason, "file /x does not exist there.");
        assert_eq!(advice, "Install it.");
    }
}
