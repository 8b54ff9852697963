//! A migration that an agent before us did not settle, taken up again from its journal.

use crate::audience::Audience;
use crate::bulk::Moved;
use crate::complaint::Complaint;
use crate::connection::{DialError, Peer};
use crate::ending::{Ending, chain};
use crate::engine_thread::{EngineThread, Tree, Workplace};
use crate::hello;
use crate::journal::{self, Journal, Past, ReopenError};
use crate::left_behind::Abandoned;
use crate::news::Post;
use crate::page_streams::Wishes;
use crate::place::Place;
use crate::session::{Course, Session};
use protocol::source::{Entry, State};
use protocol::{MigrationId, Outbox, Outcome};
use std::io;
use std::path::Path;

#[derive(Debug)]
pub(crate) struct Unfinished {
    id: MigrationId,
    journal: Journal,
    pub(crate) past: Past,
    last: Entry,
    place: Place,
}

/// Why there is nothing to take up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NothingToDo {
    #[error(transparent)]
    Reopen(#[from] ReopenError),
    #[error("migration {id} of process {pid} to {destination} is settled: {how}")]
    Settled { id: MigrationId, pid: i32, destination: String, how: &'static str },
    #[error("the journal of migration {0} names no destination")]
    NoPlace(MigrationId),
}

impl From<&NothingToDo> for Complaint {
    fn from(why: &NothingToDo) -> Self {
        let text = chain(why).join(": ");
        match why {
            NothingToDo::Reopen(ReopenError::Unknown { .. }) => Self::Usage(text),
            NothingToDo::Reopen(ReopenError::AtWork { .. }) => Self::Refused(text),
            NothingToDo::Settled { .. } => Self::Refused(text),
            NothingToDo::Reopen(ReopenError::Journal(_)) | NothingToDo::NoPlace(_) => {
                Self::Failed(text)
            }
        }
    }
}

/// Why it cannot be gone on with now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeUpError {
    #[error(transparent)]
    Host(#[from] engine::Error),
    #[error(transparent)]
    Peer(#[from] DialError),
    #[error("start the engine's thread")]
    Thread(#[from] io::Error),
}

impl Unfinished {
    pub(crate) fn open(state: &Path, id: MigrationId) -> Result<Self, NothingToDo> {
        let (journal, past) = Journal::reopen(state, id)?;
        let last = last_unsettled(id, &past)?;
        let place = past.header.place().ok_or(NothingToDo::NoPlace(id))?;
        Ok(Self { id, journal, past, last, place })
    }

    /// Until it is settled, or nothing more can be done from here. What went wrong was told.
    pub(crate) async fn run(
        self,
        config: &Path,
        wishes: Wishes,
        vouched: Option<Outcome>,
        audience: Audience,
    ) -> Ending {
        let (id, last, host) = (self.id, self.last, self.place.host.clone());
        match self.begin(config, wishes, audience.post.clone()) {
            Ok(begun) => begun.run(vouched, audience).await,
            Err(error) => {
                let ending = left(id, last, chain(&error));
                audience.report.ends(&ending, &host);
                ending
            }
        }
    }

    fn begin(self, config: &Path, wishes: Wishes, post: Post) -> Result<Begun, TakeUpError> {
        let Self { id, journal, past, last, place } = self;
        let peer = Peer::new(place, config)?;
        let hooks = past.header.hooks(config, id);
        let (root, tree) = (past.header.root, tree(past)?);
        let journal = Some(journal);
        let engine = EngineThread::start(Workplace { root, journal, wishes, post, tree, hooks })?;
        Ok(Begun { id, last, peer, engine })
    }
}

struct Begun {
    id: MigrationId,
    last: Entry,
    peer: Peer,
    engine: EngineThread,
}

impl Begun {
    async fn run(self, vouched: Option<Outcome>, audience: Audience) -> Ending {
        let Self { id, last, peer, engine } = self;
        let Audience { report, post, inbox, patience } = audience;
        let mut out = Outbox::new();
        let machine = State::recover(id, last, &mut out);
        let session = Session {
            id,
            peer,
            line: None,
            engine,
            inbox,
            post,
            moved: Moved::default(),
            report,
            vouched,
            patience,
            course: Course::new(0),
        };
        session.run(machine, out).await
    }
}

/// What the journal says of a migration that is not settled, whoever is at work on it.
pub(crate) fn unsettled(state: &Path, id: MigrationId) -> Result<Past, NothingToDo> {
    let past = journal::look(state, id)?;
    last_unsettled(id, &past).map(|_| past)
}

fn last_unsettled(id: MigrationId, past: &Past) -> Result<Entry, NothingToDo> {
    let how = match past.last {
        None => "nothing was touched",
        Some(Entry::Moved) => "it was moved",
        Some(Entry::Kept) => "it stayed on this host",
        Some(Entry::Gone) => "it ended on this host",
        Some(last) => return Ok(last),
    };
    let (pid, destination) = (past.header.root, past.header.destination.clone());
    Err(NothingToDo::Settled { id, pid, destination, how })
}

/// How a migration stands whose agent has ended in the middle of it. What was not surrendered was
/// let go by the kernel.
pub(crate) fn abandoned(state: &Path, id: MigrationId, chain: Vec<String>) -> Ending {
    match journal::look(state, id).ok().and_then(|past| past.last) {
        None | Some(Entry::Opened | Entry::Kept) => Ending::Failed(chain),
        Some(Entry::Moved) => Ending::Moved,
        Some(Entry::Gone) => Ending::Gone(chain),
        Some(last) => left(id, last, chain),
    }
}

/// How a migration stands that could not be gone on with.
fn left(id: MigrationId, last: Entry, chain: Vec<String>) -> Ending {
    match last {
        Entry::Surrendered => Ending::InDoubt { id, chain },
        Entry::RunsThere => Ending::PagesMissing { id, chain },
        Entry::Relieved => Ending::NotEnded { id, chain },
        _ => Ending::NotLetGo { id, chain },
    }
}

/// A tree does not outlive its kernel, and ids of another boot are other processes.
fn tree(past: Past) -> Result<Tree, engine::Error> {
    let boot_id = hello::of_this_host()?.host.boot_id;
    let same = boot_id == past.header.boot_id;
    Ok(if same {
        Tree::LeftBehind(Abandoned {
            members: past.members,
            held: past.held,
            addresses: past.header.addresses,
        })
    } else {
        Tree::Ended
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Header;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    fn after(entry: Entry) -> String {
        let state = tempfile::tempdir().unwrap();
        let header = Header {
            root: 7,
            destination: "hostb:7747".into(),
            boot_id: "boot".into(),
            ..Header::default()
        };
        Journal::plan(state.path(), ID, header).unwrap().record(entry).unwrap();
        Unfinished::open(state.path(), ID).unwrap_err().to_string()
    }

    #[test]
    fn what_is_settled_is_told_in_one_sentence() {
        let is = |how| format!("migration {ID} of process 7 to hostb:7747 is settled: {how}");
        assert_eq!(after(Entry::Moved), is("it was moved"));
        assert_eq!(after(Entry::Kept), is("it stayed on this host"));
        assert_eq!(after(Entry::Gone), is("it ended on this host"));
    }

    #[test]
    fn what_is_not_known_is_told_in_one_sentence() {
        let state = tempfile::tempdir().unwrap();
        let error = Unfinished::open(state.path(), ID).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("there is no migration {ID} in the journals")),
            "{error}"
        );
    }
}
