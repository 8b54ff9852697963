//! What reaches a session: everything through one queue, so that nothing is raced.

use protocol::source::Input;
use protocol::{Message, Outcome};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) enum News {
    /// An answer of the engine.
    Input(Input),
    /// From the line of this number; what an earlier line still delivers is dropped.
    Heard {
        line: u32,
        message: Message,
    },
    Lost {
        line: u32,
        cause: String,
    },
    /// The connection for faults, and not the other.
    FaultsLost {
        line: u32,
        cause: String,
    },
    /// The operator wants it to stop: SIGINT or SIGTERM.
    Stop,
    /// The operator answers for a destination that cannot be asked.
    Vouch(Outcome),
    /// The operator wants a destination that did not answer to be asked again at once.
    Ask,
    /// The tree is about to be stopped. Of several times the last one counts.
    Freezes {
        began: Instant,
        at: SystemTime,
    },
    /// How long a step of the freeze took.
    Step {
        name: String,
        took: Duration,
    },
}

/// Everything that is under way at once, several times over.
const QUEUED_MAX: usize = 256;

pub(crate) type Inbox = mpsc::Receiver<News>;
pub(crate) type Post = mpsc::Sender<News>;

pub(crate) fn queue() -> (Post, Inbox) {
    mpsc::channel(QUEUED_MAX)
}

/// From a thread without a runtime. A session that has ended wants no news.
pub(crate) fn tell(post: &Post, news: News) {
    let _session_has_ended = post.blocking_send(news);
}
