//! The migrations that the agent is at work on, and how each of them is reached.

use crate::audience::Audience;
use crate::ending::Purpose;
use crate::frames::{Frame, Live};
use crate::listeners::Listeners;
use crate::news::{self, News, Post};
use crate::output::Output;
use crate::report::Report;
use crate::session::Patience;
use protocol::{MigrationId, Outcome};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;

/// Far more than a host has trees that are moved at once.
const MIGRATIONS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Roster(Mutex<BTreeMap<MigrationId, Entry>>);

#[derive(Debug)]
struct Entry {
    pid: i32,
    destination: String,
    since_unix_s: u64,
    listeners: Listeners,
    /// None between two attempts to settle it.
    post: Option<Post>,
    /// The operator's word, for the next attempt.
    vouched: Option<Outcome>,
    nudge: Arc<Notify>,
}

/// What an attempt begins with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) audience: Audience,
    pub(crate) vouched: Option<Outcome>,
    /// Told when an operator wants the next attempt at once.
    pub(crate) nudge: Arc<Notify>,
}

impl Roster {
    /// False when it is there already, or there are too many.
    pub(crate) fn enter(&self, id: MigrationId, pid: i32, destination: &str) -> bool {
        let mut entries = self.lock();
        if entries.contains_key(&id) || entries.len() >= MIGRATIONS_MAX {
            return false;
        }
        let (listeners, destination) = (Listeners::default(), destination.to_owned());
        let (nudge, since_unix_s) = (Arc::new(Notify::new()), unix_s_now());
        let (post, vouched) = (None, None);
        let entry = Entry { pid, destination, since_unix_s, listeners, post, vouched, nudge };
        entries.insert(id, entry);
        true
    }

    pub(crate) fn start(&self, id: MigrationId) -> Option<Start> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&id)?;
        let (post, inbox) = news::queue();
        entry.post = Some(post.clone());
        let output = Output::Listeners(entry.listeners.clone());
        let report = Report::new(output, Purpose::Move);
        let audience = Audience { report, post, inbox, patience: Patience::Agent };
        let (vouched, nudge) = (entry.vouched.take(), Arc::clone(&entry.nudge));
        Some(Start { audience, vouched, nudge })
    }

    /// Nobody is at work on it until the next start.
    pub(crate) fn pause(&self, id: MigrationId) {
        if let Some(entry) = self.lock().get_mut(&id) {
            entry.post = None;
        }
    }

    pub(crate) fn leave(&self, id: MigrationId) {
        self.lock().remove(&id);
    }

    /// Listens to it. `None` when nobody is at work on it.
    pub(crate) fn join(&self, id: MigrationId) -> Option<Receiver<Frame>> {
        self.lock().get(&id).map(|entry| entry.listeners.join())
    }

    /// Reaches its session; what cannot be taken at once is dropped, as an operator repeats it.
    pub(crate) fn tell(&self, id: MigrationId, news: News) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&id) else { return };
        // For the next session, if there is none now.
        if let (News::Vouch(outcome), None) = (&news, &entry.post) {
            entry.vouched = Some(*outcome);
        }
        entry.nudge.notify_one();
        if let Some(post) = &entry.post {
            let _it_is_busy = post.try_send(news);
        }
    }

    pub(crate) fn tell_all(&self, news: impl Fn() -> News) {
        for post in self.lock().values().filter_map(|entry| entry.post.as_ref()) {
            let _it_is_busy = post.try_send(news());
        }
    }

    pub(crate) fn all(&self) -> Vec<Live> {
        let live = |(id, entry): (&MigrationId, &Entry)| Live {
            id: *id,
            pid: entry.pid,
            destination: entry.destination.clone(),
            phase: entry.phase(),
            since_unix_s: entry.since_unix_s,
        };
        self.lock().iter().map(live).collect()
    }

    /// Whether any of them has not handed its tree over yet.
    pub(crate) fn has_cancellable(&self) -> bool {
        let is_given = |entry: &Entry| matches!(&*entry.listeners.phase(), "handover" | "lazy");
        self.lock().values().any(|entry| !is_given(entry))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MigrationId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// What the session does that there is; between two of them nothing is done.
    fn phase(&self) -> String {
        match self.post {
            Some(_) => self.listeners.phase(),
            None => "waits to be tried again".to_owned(),
        }
    }
}

fn unix_s_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    #[test]
    fn a_migration_is_there_once() {
        let roster = Roster::default();
        assert!(roster.enter(ID, 7, "b:1"));
        assert!(!roster.enter(ID, 7, "b:1"));
        assert_eq!(roster.all()[0].pid, 7);
        roster.leave(ID);
        assert!(roster.enter(ID, 7, "b:1"));
    }

    #[test]
    fn between_two_attempts_it_is_not_said_to_be_doing_what_it_did_last() {
        let roster = Roster::default();
        roster.enter(ID, 7, "b:1");
        let start = roster.start(ID).unwrap();
        start.audience.report.shows("handover");
        assert_eq!(roster.all()[0].phase, "handover");
        assert!(!roster.has_cancellable());
        roster.pause(ID);
        assert_eq!(roster.all()[0].phase, "waits to be tried again");
        assert!(!roster.has_cancellable(), "what was handed over stays so");
        assert!(roster.all()[0].since_unix_s > 0);
    }

    #[tokio::test]
    async fn the_operators_word_waits_for_the_next_attempt() {
        let roster = Roster::default();
        roster.enter(ID, 7, "b:1");
        let first = roster.start(ID).unwrap();
        roster.pause(ID);
        roster.tell(ID, News::Vouch(Outcome::Running));
        first.nudge.notified().await;
        assert_eq!(roster.start(ID).unwrap().vouched, Some(Outcome::Running));
    }
}
