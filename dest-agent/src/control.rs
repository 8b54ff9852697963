//! The control stream: whole messages in both directions.

use crate::report;
use crate::session::Event;
use bytes::Bytes;
use link::{Connection, FrameReceiver, FrameSender, LinkError};
use protocol::control::{self, ControlError, Decoder};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::{Message, framing};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What the link carries at a time: a whole frame of the protocol in most cases.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX + 16;

const CHUNK_BYTES: usize = 1 << 20;
/// For room in the window. Only the list of missing pages is ever larger than it.
const SEND_WAIT: Duration = Duration::from_secs(10);
/// For the last word to arrive.
const FINISH_WAIT: Duration = Duration::from_secs(5);
/// A source says nothing while it waits, so silence is no reason to read no further: the machine
/// has a patience of its own, and a connection that is dead is noticed by the link.
const SILENCE_MAX: Duration = Duration::from_hours(24 * 365);

/// A control stream that has said which migration it is for.
#[derive(Debug)]
pub struct ControlStream {
    pub connection: Connection,
    pub sender: FrameSender,
    pub receiver: FrameReceiver,
    /// Holds what came behind the head.
    pub frames: framing::Decoder,
}

/// The link to the source that a session has at the moment.
#[derive(Debug)]
pub struct Link {
    number: u64,
    sender: FrameSender,
    reading: AbortHandle,
    /// Until the source has said something on this stream, nothing is owed to it here: an answer
    /// on its way would be one to the stream before.
    pub has_spoken: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("write a message")]
    Control(#[from] ControlError),
    #[error("send a message")]
    Link(#[from] LinkError),
}

impl Link {
    /// Begins to read; what comes goes into the session's events under this number.
    pub fn begin(number: u64, stream: ControlStream, events: mpsc::Sender<Event>) -> Self {
        let ControlStream { sender, receiver, frames, .. } = stream;
        let reading = tokio::spawn(async move {
            let cause = read(number, receiver, Decoder::after(frames), &events).await;
            // Fails only when the session has ended, and then nobody needs to know.
            let _ = events.send(Event::LinkLost { link: number, cause }).await;
        });
        Self { number, sender, reading: reading.abort_handle(), has_spoken: false }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub async fn send(&mut self, message: Message) -> Result<(), SendError> {
        let mut wire = Vec::new();
        control::encode(message, &mut wire)?;
        let mut wire = Bytes::from(wire);
        while !wire.is_empty() {
            let chunk = wire.split_to(wire.len().min(CHUNK_BYTES));
            self.sender.send(chunk, SEND_WAIT).await?;
        }
        Ok(())
    }

    /// Reads no more, and sees to it that what was said arrives.
    pub fn end(self) {
        self.reading.abort();
        tokio::spawn(async move {
            if let Err(error) = self.sender.finish(FINISH_WAIT).await {
                tracing::debug!("the last word may be lost: {}", report::chain(&error));
            }
        });
    }
}

/// Until the stream ends, for the reason that is returned.
async fn read(
    number: u64,
    mut receiver: FrameReceiver,
    mut decoder: Decoder,
    events: &mpsc::Sender<Event>,
) -> String {
    loop {
        loop {
            let message = match decoder.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return report::chain(&error),
            };
            let event = Event::Message { link: number, message, at: Instant::now() };
            if events.send(event).await.is_err() {
                return "the migration has ended here".to_owned();
            }
        }
        match receiver.receive(SILENCE_MAX).await {
            Ok(Some(payload)) => decoder.push(&payload),
            Ok(None) => return "the source ended the control stream".to_owned(),
            Err(error) => return report::chain(&error),
        }
    }
}
