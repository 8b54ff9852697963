//! The migrations that this host takes part in, by their ids.

use crate::holding::{Holder, Holding};
use crate::journal::{Journal, JournalError, Last};
use crate::policy::Policy;
use crate::report;
use crate::scope::Scopes;
use crate::session::{Event, Session};
use link::Fingerprint;
use protocol::destination::State;
use protocol::version::Hello;
use protocol::{MigrationId, Outbox, Outcome};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Migrations at once, finished ones that are still asked about included.
const SESSIONS_MAX: usize = 256;
/// Of one source, so that it does not take the places of all others.
const SESSIONS_OF_ONE_MAX: usize = 64;
/// Of one source at once. A migration has two, and a third for a moment when it comes back.
pub const CONNECTIONS_MAX: usize = 32;

const PRUNE_INTERVAL: Duration = Duration::from_mins(10);

/// What all migrations have in common.
#[derive(Debug)]
pub struct Agent {
    pub hello: Hello,
    pub journal: Journal,
    pub policy: Policy,
    pub scopes: Arc<Scopes>,
    /// Where images are while copies are made of them.
    pub state: PathBuf,
}

#[derive(Debug)]
pub struct Registry {
    agent: Arc<Agent>,
    sessions: Mutex<HashMap<MigrationId, Entry>>,
    connections: Mutex<HashMap<Fingerprint, usize>>,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub struct Counted {
    peer: Fingerprint,
    registry: Arc<Registry>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut connections = self.registry.lock_connections();
        if let Some(count) = connections.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.peer);
            }
        }
    }
}

#[derive(Debug)]
struct Entry {
    peer: Fingerprint,
    holding: Arc<Holding>,
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
    #[error("there are {SESSIONS_OF_ONE_MAX} migrations of this source already")]
    TooManyOfOne,
    #[error("look for migration {id} in the journal")]
    Journal { id: MigrationId, source: JournalError },
}

impl Registry {
    pub fn new(agent: Agent) -> Arc<Self> {
        Arc::new(Self {
            agent: Arc::new(agent),
            sessions: Mutex::default(),
            connections: Mutex::default(),
        })
    }

    pub fn agent(&self) -> Arc<Agent> {
        Arc::clone(&self.agent)
    }

    /// Forgets what nobody can ask about any more, now and every [`PRUNE_INTERVAL`].
    pub async fn keep_the_journal_short(self: Arc<Self>) {
        loop {
            let agent = Arc::clone(&self.agent);
            let pruned =
                tokio::task::spawn_blocking(move || agent.journal.prune(SystemTime::now()));
            match pruned.await {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(count)) => tracing::info!("forgot {count} settled migrations"),
                Ok(Err(error)) => tracing::warn!("{}", report::chain(&error)),
            }
            tokio::time::sleep(PRUNE_INTERVAL).await;
        }
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
            let of_one = sessions.values().filter(|entry| entry.peer == peer).count();
            if of_one >= SESSIONS_OF_ONE_MAX {
                return Err(TurnedAway::TooManyOfOne);
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
        let running = protocol::destination::Entry::Decided(Outcome::Running);
        let is_decided = last.as_ref().is_some_and(|last| last.entry == running);
        let state = match last {
            Some(last) => State::recover(id, last.entry, last.boot, &mut out),
            None => State::listen(self.agent.hello.clone()),
        };
        let session = Session::new(id, peer, Arc::clone(&self.agent), Arc::clone(self));
        let (events, holding) = (session.sender.clone(), session.holding());
        if is_decided {
            session.take_note_of_what_runs();
        }
        // A session that waits for its first stream is over when it has none; it gets it before it
        // can look, because we hold the lock that it needs to end.
        tokio::spawn(session.run(state, out));
        Entry { peer, holding, events }
    }

    /// The other migrations that are under way, with what they hold.
    pub fn holders_beside(&self, id: MigrationId) -> Vec<Holder> {
        let sessions = self.lock();
        let others = sessions.iter().filter(|(other, _)| **other != id);
        others
            .map(|(&id, entry)| Holder {
                id,
                peer: entry.peer,
                holding: Arc::clone(&entry.holding),
                events: entry.events.clone(),
            })
            .collect()
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

    /// `None` when this source has as many connections as it may have.
    pub fn count_in(self: &Arc<Self>, peer: Fingerprint) -> Option<Counted> {
        let mut connections = self.lock_connections();
        let count = connections.entry(peer).or_default();
        if *count >= CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Counted { peer, registry: Arc::clone(self) })
    }

    fn lock_connections(&self) -> MutexGuard<'_, HashMap<Fingerprint, usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MigrationId, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
