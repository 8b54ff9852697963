//! What reaches a session: everything through one queue, so that nothing is raced.

use protocol::Message;
use protocol::source::Input;
use std::time::Duration;
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
    /// The operator wants it to stop: SIGINT or SIGTERM.
    Stop,
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
