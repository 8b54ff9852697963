//! What is written down about a migration, and what must be done before and after it.

use super::Session;
use crate::engine_thread::Order;
use crate::left::Left;
use crate::report;
use crate::tree::forget;
use engine::failure_point;
use protocol::destination::{Doing, Entry, Input};
use protocol::{Failure, Outcome, Phase};
use std::sync::Arc;
use tokio::sync::oneshot;

impl Session {
    /// Before the first stub: from here on there is something to discard. That an offer was
    /// accepted is not worth a line; most of those that go no further were only a check.
    pub(super) fn note_what_is_staged(&self) -> Result<(), Failure> {
        let noted = self.agent.journal.append(self.id, self.peer, &Entry::Accepted);
        self.sync_soon(false);
        noted.map_err(|error| report::of(Phase::Stage, &error))
    }

    /// Whether a restarted agent would do and answer the same without this line. What it knows
    /// nothing of it discards; but who has asked may rely on a line.
    fn goes_without_saying(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Accepted => true,
            Entry::Decided(Outcome::Discarded) => {
                !self.was_asked && !self.agent.journal.has(self.id)
            }
            _ => false,
        }
    }

    pub(super) async fn record(&mut self, entry: Entry) -> Input {
        let step = step(&entry);
        let failed = |error: engine::Error| {
            let failure = report::of_engine(Phase::Handover, &error);
            Input::Failed { doing: Doing::Record, failure }
        };
        if let Err(error) = failure_point::pass(step, "before") {
            return failed(error);
        }
        let recorded = self.write_down(entry).await;
        failure_point::pass(step, "after").map_or_else(failed, |()| recorded)
    }

    async fn write_down(&mut self, entry: Entry) -> Input {
        let doing = Doing::Record;
        if entry == Entry::Decided(Outcome::Running) {
            self.parts.holding.decide();
        }
        if self.goes_without_saying(&entry) {
            return Input::Recorded(entry);
        }
        if entry == Entry::Decided(Outcome::Running)
            && let Err(failure) = self.make_it_outlive_us().await
        {
            return Input::Failed { doing, failure };
        }
        if let Err(error) = self.agent.journal.append(self.id, self.peer, &entry) {
            return Input::Failed { doing, failure: report::of(Phase::Handover, &error) };
        }
        if matches!(entry, Entry::Complete(_)) {
            self.parts.holding.complete();
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

/// Its name among the [`failure_point`]s.
fn step(entry: &Entry) -> &'static str {
    match entry {
        Entry::Accepted => "destination.record-accepted",
        Entry::Decided(Outcome::Running) => "destination.record-running",
        Entry::Decided(_) => "destination.record-discarded",
        Entry::Complete(_) => "destination.record-complete",
        Entry::Lost(_) => "destination.record-lost",
    }
}
