//! A destination that says the right things up to a point, and builds nothing.

use bytes::Bytes;
use link::{Connection, Control, FrameReceiver, FrameSender, Identity, Listener, Tuning};
use protocol::Message;
use protocol::control::{self, Decoder};
use protocol::framing;
use protocol::limits::FRAME_BYTES_MAX;
use protocol::message::{Accept, MigrationId, Ready, RoundStored, Staged};
use protocol::stream::{Role, StreamHead};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(30);
const SECOND_NS: u64 = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct Destination {
    identity: Identity,
    port: u16,
    lines: mpsc::Receiver<Line>,
    /// Fault connections are held for as long as we listen, unless a test takes them.
    faults: mpsc::Receiver<Line>,
    accepting: AbortHandle,
    _home: TempDir,
}

/// One control stream, with everything else of its source kept open and never read.
#[derive(Debug)]
pub(crate) struct Line {
    connection: Connection,
    sender: FrameSender,
    receiver: FrameReceiver,
    decoder: Decoder,
    migration: MigrationId,
}

impl Destination {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(home.path()).unwrap();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let everybody = Arc::new(|_: &_| Ok(Vec::new()));
        let listener = Listener::bind(anywhere, &identity, everybody, &Tuning::bulk()).unwrap();
        let port = listener.address().port();
        let (arrived, lines) = mpsc::channel(4);
        let (held, faults) = mpsc::channel(4);
        let accepting = tokio::spawn(accept(listener, arrived, held)).abort_handle();
        Self { identity, port, lines, faults, accepting, _home: home }
    }

    pub(crate) fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.host(), self.port)
    }

    pub(crate) fn fingerprint(&self) -> link::Fingerprint {
        self.identity.fingerprint()
    }

    /// The next control stream.
    pub(crate) async fn line(&mut self) -> Line {
        timeout(WAIT, self.lines.recv()).await.expect("a source calls").unwrap()
    }

    /// The next stream for faults.
    pub(crate) async fn faults(&mut self) -> Line {
        timeout(WAIT, self.faults.recv()).await.expect("a source calls for faults").unwrap()
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: Listener, arrived: mpsc::Sender<Line>, held: mpsc::Sender<Line>) {
    while let Ok(incoming) = listener.accept().await {
        let connection = incoming.establish().await.unwrap();
        let control = connection.accept_control(FRAME_BYTES_MAX + 16, WAIT).await.unwrap();
        let Control { sender, mut receiver, .. } = control;
        let head = receiver.receive(WAIT).await.unwrap().expect("a stream begins with its head");
        let mut frames = framing::Decoder::new();
        frames.push(&head);
        let head: StreamHead = frames.next_frame().unwrap().expect("the head is whole");
        let decoder = Decoder::after(frames);
        let line = Line { connection, sender, receiver, decoder, migration: head.migration };
        match head.check().unwrap() {
            Role::Control(_) => arrived.send(line).await.unwrap(),
            _ => held.send(line).await.unwrap(),
        }
    }
}

pub(crate) fn is_handover(message: &Message) -> bool {
    matches!(message, Message::Handover(_))
}

/// The image is there, and the source waits to hear that it was built.
pub(crate) fn is_image(message: &Message) -> bool {
    matches!(message, Message::Image(_))
}

impl Line {
    /// Answers as a good destination does, until a message comes that the test will answer itself.
    /// Tells the migration's id.
    pub(crate) async fn until(&mut self, is_it: impl Fn(&Message) -> bool) -> String {
        loop {
            let message = self.hear().await;
            if is_it(&message) {
                return self.migration.to_string();
            }
            if let Some(answer) = answer(message) {
                self.say(answer).await;
            }
        }
    }

    /// What is asked after a lost link, which must be the first word.
    pub(crate) async fn inquiry(&mut self) -> MigrationId {
        match self.hear().await {
            Message::Inquire(inquire) => inquire.migration,
            other => panic!("{} comes before the question", other.name()),
        }
    }

    pub(crate) async fn say(&mut self, message: Message) {
        let mut bytes = Vec::new();
        control::encode(message, &mut bytes).unwrap();
        self.sender.send(Bytes::from(bytes), WAIT).await.unwrap();
    }

    /// As if the host had died.
    pub(crate) fn cut(self) {
        self.connection.close(link::CALLER_CODES, "cut by the test");
    }

    /// As if what asks on it had come to its end, with the connection still there.
    pub(crate) async fn finish(self) {
        self.sender.finish(WAIT).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return message;
            }
            let bytes = self.receiver.receive(WAIT).await.unwrap();
            self.decoder.push(&bytes.expect("the source goes on"));
        }
    }
}

fn answer(message: Message) -> Option<Message> {
    Some(match message {
        // One machine: what the source says of its host is true of ours.
        Message::Hello(hello) => Message::Hello(hello),
        Message::Offer(_) => {
            Message::Accept(Accept { monotonic_ns: SECOND_NS, boottime_ns: SECOND_NS })
        }
        Message::Stage(_) => Message::Staged(Staged {}),
        Message::RoundEnd(end) => {
            Message::RoundStored(RoundStored { round: end.round, pages: end.pages })
        }
        Message::Image(_) => Message::Ready(Ready::default()),
        _ => return None,
    })
}
