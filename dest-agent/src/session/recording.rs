//! What is written down about a migration, and what must be done before and after it.

use super::Session;
use crate::engine_thread::Order;
use crate::left::Left;
use crate::report;
use crate::tree::forget;
use protocol::destination::{Doing, Entry, Input};
use protocol::{Failure, Outcome, Phase};
use std::sync::Arc;
use tokio::sync::oneshot;

impl Session {
    pub(super) async fn record(&mut self, entry: Entry) -> Input {
        let doing = Doing::Record;
        if entry == Entry::Decided(Outcome::Running)
            && let Err(failure) = self.make_it_outlive_us().await
        {
            return Input::Failed { doing, failure };
        }
        if let Err(error) = self.agent.journal.append(self.id, self.peer, &entry) {
            return Input::Failed { doing, failure: report::of(Phase::Handover, &error) };
        }
        if matches!(entry, Entry::Complete(_) | Entry::Lost(_)) {
            self.place = None;
            forget(&self.parts.left);
        }
        if entry != Entry::Decided(Outcome::Running) {
            self.sync_soon(false);
        }
        Input::Recorded(entry)
    }

    async fn make_it_outlive_us(&mut self) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        if let Some(Input::Failed { failure, .. }) =
            self.order(Doing::Record, Order::OutliveUs { answer })
        {
            return Err(failure);
        }
        answered.await.unwrap_or_else(|_| {
            let cause = "the thread that works on it is gone";
            Err(report::because(Phase::Handover, "guard", "the tree", cause))
        })
    }

    /// Where nobody waits for it.
    pub(super) fn sync_soon(&self, has_run: bool) {
        let (agent, id, left) = (Arc::clone(&self.agent), self.id, self.parts.left.clone());
        tokio::task::spawn_blocking(move || {
            if has_run && let Err(error) = Left::note_that_it_has_run(&left) {
                tracing::warn!(migration = %id, "write {}: {error}", left.display());
            }
            if let Err(error) = agent.journal.sync(id) {
                tracing::warn!(migration = %id, "{}", report::chain(&error));
            }
        });
    }
}
