//! Which process ids the stubs of a migration hold here, and whether its source is still there.
//!
//! A `migrate` that is killed says no goodbye: its stubs stay until the link's idle timeout, and
//! would stand in the way of the very same tree when its operator tries again. So an offer whose
//! ids are held by an undecided migration of the same source takes its pulse, and has it discarded
//! if there is none. A source that lives is heard of every two seconds, whatever it does: the link
//! keeps itself alive.

use crate::session::Event;
use link::{Connection, Fingerprint};
use protocol::MigrationId;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// For a sign of life. More than the link's interval between two, and one way of a slow path.
const PULSE_WAIT: Duration = Duration::from_millis(2600);
/// For stubs to be gone that were told to.
const RELEASE_WAIT: Duration = Duration::from_secs(5);
const LOOK_WAIT: Duration = Duration::from_millis(20);

/// What one migration holds.
#[derive(Debug, Default)]
pub struct Holding(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    ids: BTreeSet<i32>,
    is_decided: bool,
    is_complete: bool,
    connection: Option<Connection>,
}

impl Holding {
    /// The ids of a layout that is about to be staged.
    pub fn hold(&self, ids: impl Iterator<Item = i32>) {
        self.lock().ids.extend(ids);
    }

    /// Nothing of it is here any more.
    pub fn release(&self) {
        self.lock().ids.clear();
    }

    /// Nobody but its own source has a say in it from here on.
    pub fn decide(&self) {
        self.lock().is_decided = true;
    }

    pub fn is_decided(&self) -> bool {
        self.lock().is_decided
    }

    /// It runs here with every page, and its original is not needed any more.
    pub fn complete(&self) {
        self.lock().is_complete = true;
    }

    /// The connection by which its source is heard.
    pub fn is_led_by(&self, connection: Option<Connection>) {
        self.lock().connection = connection;
    }

    fn holds(&self, ids: &BTreeSet<i32>) -> bool {
        !self.lock().ids.is_disjoint(ids)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its source says anything within [`PULSE_WAIT`].
    fn has_pulse(&self) -> bool {
        let Some(connection) = self.lock().connection.clone() else { return false };
        let before = connection.stats().received_bytes;
        let is_heard = || connection.stats().received_bytes > before;
        wait_until(PULSE_WAIT, || connection.is_closed() || is_heard()) && !connection.is_closed()
    }
}

/// A migration that has some of the ids that another one wants.
#[derive(Debug)]
pub struct Holder {
    pub id: MigrationId,
    pub peer: Fingerprint,
    pub holding: Arc<Holding>,
    pub events: mpsc::Sender<Event>,
}

impl Holder {
    pub fn has_any(&self, ids: &BTreeSet<i32>) -> bool {
        self.holding.holds(ids)
    }

    /// Has it discarded if it is `peer`'s, undecided, and nobody leads it any more. Blocks.
    pub fn clear_away(&self, peer: Fingerprint) {
        if self.peer != peer || self.holding.is_decided() || self.holding.has_pulse() {
            return;
        }
        tracing::info!(migration = %self.id, "discarded: its source has begun anew");
        let ids = self.holding.lock().ids.clone();
        // A session that has 64 things to do is not one that nobody leads.
        if self.events.try_send(Event::Abandoned).is_ok() {
            wait_until(RELEASE_WAIT, || self.holding.lock().ids.is_empty());
            // Some inits look for dead children only every other second.
            let is_there = |id: &i32| Path::new(&format!("/proc/{id}")).exists();
            wait_until(RELEASE_WAIT, || !ids.iter().any(is_there));
        }
    }

    /// Why its ids are taken, and what the operator of `peer` can do about it.
    pub fn reason(&self, peer: Fingerprint) -> (String, String) {
        let id = self.id;
        let Held { is_decided, is_complete, .. } = *self.holding.lock();
        match (is_decided, self.peer == peer) {
            (true, true) if is_complete => (
                format!("has been moved to the destination by migration {id}"),
                format!("What is left of it here is ended by: migrate resume {id}"),
            ),
            // Ending the process there would end the only one that runs.
            (true, true) => (
                format!(
                    "runs on the destination since migration {id}, which still fetches its pages \
                     from here"
                ),
                format!(
                    "Bring it what it lacks with: migrate resume {id} (and see how it stands with: \
                     migrate status {id})"
                ),
            ),
            (true, false) => (
                format!("runs on the destination since migration {id} of another source"),
                "Choose another destination.".to_owned(),
            ),
            (false, true) => (
                format!("is held by migration {id} of this source, which is under way"),
                "Wait for its end, or cancel it.".to_owned(),
            ),
            (false, false) => (
                format!("is held by migration {id} of another source, which is under way"),
                "Wait for its end, or choose another destination.".to_owned(),
            ),
        }
    }
}

fn wait_until(time_max: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let limit = Instant::now() + time_max;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > limit {
            return false;
        }
        std::thread::sleep(LOOK_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    fn key(byte: &str) -> Fingerprint {
        format!("SHA256:{}", byte.repeat(43)).parse().unwrap()
    }

    fn told(holding: Holding, to: &Fingerprint) -> String {
        let (events, _inbox) = mpsc::channel(1);
        let holder = Holder { id: ID, peer: key("A"), holding: Arc::new(holding), events };
        let (reason, advice) = holder.reason(*to);
        format!("{reason}. {advice}")
    }

    #[test]
    fn nobody_is_advised_to_end_the_only_copy_that_runs() {
        let running = Holding::default();
        running.decide();
        let text = told(running, &key("A"));
        assert!(text.contains("still fetches its pages from here"), "{text}");
        assert!(text.contains(&format!("migrate resume {ID}")), "{text}");
        assert!(text.contains(&format!("migrate status {ID}")), "{text}");
        assert!(!text.contains("End that process"), "{text}");
    }

    #[test]
    fn only_what_is_complete_is_said_to_have_been_moved() {
        let complete = Holding::default();
        complete.decide();
        assert!(!told(Holding::default(), &key("A")).contains("moved"));
        complete.complete();
        let text = told(complete, &key("A"));
        assert!(text.starts_with("has been moved to the destination by migration"), "{text}");
    }

    #[test]
    fn another_source_is_told_of_no_command_that_it_could_not_give() {
        let running = Holding::default();
        running.decide();
        let text = told(running, &key("E"));
        assert!(text.ends_with("of another source. Choose another destination."), "{text}");
    }
}
