//! `migrate settle`: the operator answers for a destination that can never be asked again.

use crate::audience::Audience;
use crate::cli::{Answer, Settle};
use crate::client::Client;
use crate::complaint::{Complaint, only_root};
use crate::ending::Purpose;
use crate::frames::Wish;
use crate::journal::Past;
use crate::page_streams::Wishes;
use crate::resume::nothing_to_do;
use crate::unfinished::{Unfinished, unsettled};
use anyhow::Result;
use protocol::source::Entry;
use protocol::{MigrationId, Outcome};
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

/// Why an answer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unacceptable {
    #[error(
        "migration {id} cannot be kept here: {destination} has said that the tree runs there with \
         all its pages, so the original is being ended"
    )]
    IsComplete { id: MigrationId, destination: String },
    #[error(
        "migration {id} was never handed over, so there is no doubt: the tree runs here, and \
         `migrate resume {id}` clears up after it"
    )]
    NoDoubt { id: MigrationId },
}

pub(crate) async fn run(settle: Settle) -> Result<ExitCode> {
    if let Err(complaint) = only_root("settle a migration") {
        return Ok(complaint.say());
    }
    let (id, outcome) = (settle.id, settle.answer().into());
    let past = match unsettled(&settle.state.state, id) {
        Ok(past) => past,
        Err(why) => return Ok(nothing_to_do(&why, settle.common.json)),
    };
    if let Err(why) = acceptable(id, &past, outcome) {
        return Ok(Complaint::refused(why).say());
    }
    if let Err(why) = confirm(&settle, &past) {
        return Ok(Complaint::refused(why).say());
    }
    let client = Client { agent: &settle.agent, state: &settle.state.state };
    let wish = Wish::Settle { id, answer: settle.answer() };
    if let Some(code) = client.follow(wish, settle.common.json).await? {
        return Ok(code.into());
    }
    here(settle, outcome).await
}

/// Without an agent.
async fn here(settle: Settle, outcome: Outcome) -> Result<ExitCode> {
    let unfinished = match Unfinished::open(&settle.state.state, settle.id) {
        Ok(unfinished) => unfinished,
        Err(why) => return Ok(nothing_to_do(&why, settle.common.json)),
    };
    let audience = Audience::operator(settle.common.json, Purpose::Move)?;
    let (config, wishes) = (&settle.common.config, Wishes::plain());
    let ending = unfinished.run(config, wishes, Some(outcome), audience).await;
    Ok(ending.code().into())
}

/// A warning was shown, and nobody has agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Unconfirmed {
    #[error("nothing was done: without a terminal to confirm it on, this needs --yes")]
    NoTerminal,
    #[error("nothing was done: it was not confirmed")]
    NotAgreed,
}

/// Whether what the journal says leaves room for this answer.
pub(crate) fn acceptable(
    id: MigrationId,
    past: &Past,
    outcome: Outcome,
) -> Result<(), Unacceptable> {
    match (past.last, outcome) {
        (Some(Entry::Relieved), Outcome::Discarded) => {
            let destination = past.header.destination.clone();
            Err(Unacceptable::IsComplete { id, destination })
        }
        (None | Some(Entry::Opened), _) => Err(Unacceptable::NoDoubt { id }),
        _ => Ok(()),
    }
}

/// Says what is risked, and wants it confirmed: by `--yes`, or on a terminal by hand.
fn confirm(settle: &Settle, past: &Past) -> Result<(), Unconfirmed> {
    eprintln!("{}", warning(settle.answer(), past));
    if settle.yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Unconfirmed::NoTerminal);
    }
    eprintln!("Type yes to go on:");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" { Ok(()) } else { Err(Unconfirmed::NotAgreed) }
}

fn warning(answer: Answer, past: &Past) -> String {
    let destination = &past.header.destination;
    let has_run_there = match past.last {
        Some(Entry::RunsThere) => format!(
            "{destination} has said that the tree runs there. What it has done since then, and \
             whom it has answered, it will not remember here: it goes on from where it was handed \
             over.\n"
        ),
        _ => String::new(),
    };
    match answer {
        Answer::KeepHere => format!(
            "{has_run_there}The tree will run here again. If it runs on {destination}, or ever \
             comes to, there are two of it, which write the same files and answer for the same \
             addresses. Go on only if that host can never run it: it was switched off for good, or \
             reinstalled, or has said that it lost the tree."
        ),
        Answer::Gone => format!(
            "What stands still here is ended and cannot be brought back. If the tree does not run \
             on {destination} with all its pages, it is lost."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Header;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    fn past(last: Entry) -> Past {
        let header = Header {
            root: 7,
            destination: "hostb:7747".into(),
            boot_id: "boot".into(),
            ..Header::default()
        };
        Past { header, members: Vec::new(), held: Vec::new(), last: Some(last), at_unix_s: 0 }
    }

    fn answered(last: Entry, outcome: Outcome) -> Result<(), Unacceptable> {
        acceptable(ID, &past(last), outcome)
    }

    #[test]
    fn what_is_complete_there_is_not_kept_here() {
        let error = answered(Entry::Relieved, Outcome::Discarded).unwrap_err().to_string();
        assert!(error.contains("hostb:7747 has said that the tree runs there"), "{error}");
        assert_eq!(answered(Entry::Relieved, Outcome::Running), Ok(()));
    }

    #[test]
    fn who_keeps_what_has_run_there_is_told_what_is_undone() {
        let risk = |last| warning(Answer::KeepHere, &past(last));
        assert!(risk(Entry::RunsThere).contains("it goes on from where it was handed over"));
        assert!(!risk(Entry::Surrendered).contains("handed over"));
    }

    #[test]
    fn a_doubt_can_be_answered_both_ways_and_anything_else_is_no_doubt() {
        for outcome in [Outcome::Running, Outcome::Discarded] {
            assert_eq!(answered(Entry::Surrendered, outcome), Ok(()));
            assert_eq!(answered(Entry::RunsThere, outcome), Ok(()));
            assert_eq!(answered(Entry::Opened, outcome), Err(Unacceptable::NoDoubt { id: ID }));
        }
    }
}
