//! Settles what an agent left open: at the start, and when a command was killed meanwhile.

use super::Service;
use super::roster::Start;
use crate::ending::chain;
use crate::journal;
use crate::page_streams::Wishes;
use crate::unfinished::{NothingToDo, Unfinished};
use protocol::MigrationId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Between two attempts that ended without a settlement: the first pause, which doubles, and the
/// longest. A destination that cannot be reached is no such end; the session itself waits for it.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Service {
    /// Every migration that has not come to its end, and that nobody is at work on.
    pub(super) fn take_up_what_is_open(self: &Arc<Self>) {
        let listed = match journal::list(&self.options.state.state) {
            Ok(listed) => listed,
            Err(error) => {
                return tracing::warn!("the journals cannot be read: {}", chain(&error).join(": "));
            }
        };
        for (id, past, is_at_work) in listed {
            if !is_at_work && !past.is_settled() && past.last.is_some() {
                self.keep(id, past.header.root, &past.header.destination);
            }
        }
    }

    /// From now on somebody is at work on it. False when somebody is already.
    pub(super) fn keep(self: &Arc<Self>, id: MigrationId, pid: i32, destination: &str) -> bool {
        let is_new = self.roster.enter(id, pid, destination);
        if is_new {
            tracing::info!(migration = %id, "taken up again");
            tokio::spawn(Arc::clone(self).settle(id));
        }
        is_new
    }

    /// Until it is settled.
    pub(super) async fn settle(self: Arc<Self>, id: MigrationId) {
        let mut pause = RETRY;
        while let Some(start) = self.roster.start(id) {
            let nudge = Arc::clone(&start.nudge);
            let settled = self.attempt(id, start).await;
            self.roster.pause(id);
            if settled {
                break;
            }
            let nudged = timeout(pause, nudge.notified()).await.is_ok();
            pause = if nudged { RETRY } else { (pause * 2).min(RETRY_MAX) };
        }
        self.roster.leave(id);
    }

    /// Whether there is nothing more to do.
    async fn attempt(&self, id: MigrationId, start: Start) -> bool {
        let unfinished = match Unfinished::open(&self.options.state.state, id) {
            Ok(unfinished) => unfinished,
            Err(NothingToDo::Settled { .. }) => return true,
            Err(why) => {
                tracing::warn!(migration = %id, "{}", chain(&why).join(": "));
                return false;
            }
        };
        let Start { audience, vouched, .. } = start;
        let config = &self.options.config;
        let ending = unfinished.run(config, Wishes::plain(), vouched, audience).await;
        tracing::info!(migration = %id, ?ending, "an attempt to settle it has ended");
        !ending.is_unsettled()
    }
}
