//! The migrations that this host takes part in, by their ids.

use crate::journal::{Journal, JournalError, Last};
use crate::policy::Policy;
use crate::session::{Event, Session};
use link::Fingerprint;
use protocol::destination::State;
use protocol::version::Hello;
use protocol::{MigrationId, Outbox};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Migrations at once, finished ones that are still asked about included.
const SESSIONS_MAX: usize = 256;

/// What all migrations have in common.
#[derive(Debug)]
pub struct Agent {
    pub hello: Hello,
    pub journal: Journal,
    pub policy: Policy,
}

#[derive(Debug)]
pub struct Registry {
    agent: Arc<Agent>,
    sessions: Mutex<HashMap<MigrationId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    peer: Fingerprint,
    events: mpsc::Sender<Event>,
}

/// Why a stream was turned away.
#[derive(Debug, thiserror::Error)]
pub enum TurnedAway {
    #[error("migration {0} belongs to another source")]
    NotYours(MigrationId),
    #[error("no migration {0} is under way")]
    Unknown(MigrationId),
    #[error("migration {0} has more streams than it can take in")]
    TooFast(MigrationId),
    #[error("there are {SESSIONS_MAX} migrations already")]
    TooMany,
    #[error("look for migration {id} in the journal")]
    Journal { id: MigrationId, source: JournalError },
}

impl Registry {
    pub fn new(agent: Agent) -> Arc<Self> {
        Arc::new(Self { agent: Arc::new(agent), sessions: Mutex::default() })
    }

    /// Takes up again what an agent before us has left unfinished.
    pub fn recover(self: &Arc<Self>) -> Result<(), JournalError> {
        for (id, last) in self.agent.journal.unfinished()? {
            tracing::info!(migration = %id, entry = ?last.entry, "taken up again");
            let mut sessions = self.lock();
            let entry = self.start(id, last.peer, Some(last));
            sessions.insert(id, entry);
        }
        Ok(())
    }

    /// Hands a stream to its migration. A control stream may begin one; all others belong to one.
    pub fn deliver(
        self: &Arc<Self>,
        id: MigrationId,
        peer: Fingerprint,
        stream: Event,
    ) -> Result<(), TurnedAway> {
        let mut sessions = self.lock();
        if !sessions.contains_key(&id) {
            if !matches!(stream, Event::Control(_)) {
                return Err(TurnedAway::Unknown(id));
            }
            if sessions.len() >= SESSIONS_MAX {
                return Err(TurnedAway::TooMany);
            }
            let last = self.agent.journal.last(id);
            let last = last.map_err(|source| TurnedAway::Journal { id, source })?;
            if last.as_ref().is_some_and(|last| last.peer != peer) {
                return Err(TurnedAway::NotYours(id));
            }
            let entry = self.start(id, peer, last);
            sessions.insert(id, entry);
        }
        let entry = &sessions[&id];
        if entry.peer != peer {
            return Err(TurnedAway::NotYours(id));
        }
        entry.events.try_send(stream).map_err(|_| TurnedAway::TooFast(id))
    }

    fn start(self: &Arc<Self>, id: MigrationId, peer: Fingerprint, last: Option<Last>) -> Entry {
        let mut out = Outbox::new();
        let state = match last {
            Some(last) => State::recover(id, last.entry, last.boot, &mut out),
            None => State::listen(self.agent.hello.clone()),
        };
        let session = Session::new(id, peer, Arc::clone(&self.agent), Arc::clone(self));
        let events = session.sender.clone();
        // A session that waits for its first stream is over when it has none; it gets it before it
        // can look, because we hold the lock that it needs to end.
        tokio::spawn(session.run(state, out));
        Entry { peer, events }
    }

    /// Whether a session may end: not while something is on its way to it.
    pub fn retire(&self, id: MigrationId, events: &mpsc::Receiver<Event>) -> bool {
        let mut sessions = self.lock();
        let may_end = events.is_empty();
        if may_end {
            sessions.remove(&id);
        }
        may_end
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MigrationId, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
