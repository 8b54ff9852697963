//! A stream about copies, at either end: whole messages in both directions.

use bytes::Bytes;
use link::{FrameReceiver, FrameSender, LinkError};
use protocol::copies::{self, CopiesError, Message, Part};
use protocol::framing::{Decoder, FrameError};
use protocol::limits::{FRAME_BYTES_MAX, PART_BYTES_MAX, PART_WAIT};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What one frame of the link carries: a whole frame of the protocol.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX + 16;

#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Words(#[from] CopiesError),
    #[error("write a message about copies")]
    Frame(#[from] FrameError),
    #[error("the other host ended the conversation")]
    Ended,
    #[error("{0} was said, and something else belongs here")]
    Unexpected(&'static str),
    #[error("more bytes came than were announced")]
    TooMuch,
    #[error("{action} {path}")]
    File { action: &'static str, path: String, source: io::Error },
}

#[derive(Debug)]
pub struct Line {
    sender: FrameSender,
    receiver: FrameReceiver,
    frames: Decoder,
}

impl Line {
    /// `frames` holds what came behind the head, at the end that did not open the stream.
    pub fn new(sender: FrameSender, receiver: FrameReceiver, frames: Decoder) -> Self {
        Self { sender, receiver, frames }
    }

    pub async fn say(&mut self, message: Message) -> Result<(), LineError> {
        let mut frame = Vec::new();
        copies::encode(message, &mut frame)?;
        Ok(self.sender.send(frame.into(), PART_WAIT).await?)
    }

    pub async fn hear(&mut self, wait: Duration) -> Result<Message, LineError> {
        loop {
            if let Some(message) = copies::next_message(&mut self.frames)? {
                return Ok(message);
            }
            let bytes = self.receiver.receive(wait).await?.ok_or(LineError::Ended)?;
            self.frames.push(&bytes);
        }
    }

    /// Bytes that were announced.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), LineError> {
        while !bytes.is_empty() {
            let bytes = bytes.split_to(bytes.len().min(PART_BYTES_MAX));
            self.say(Message::Part(Part { bytes })).await?;
        }
        Ok(())
    }

    /// As many bytes of a file as were announced.
    pub async fn send_file(&mut self, path: &Path, bytes: u64) -> Result<(), LineError> {
        let failed = failed("read", path);
        let mut file = File::open(path).await.map_err(&failed)?.take(bytes);
        let mut left = bytes;
        while left > 0 {
            let mut part = Vec::with_capacity(PART_BYTES_MAX);
            (&mut file)
                .take(PART_BYTES_MAX as u64)
                .read_to_end(&mut part)
                .await
                .map_err(&failed)?;
            if part.is_empty() {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= part.len() as u64;
            self.say(Message::Part(Part { bytes: part.into() })).await?;
        }
        Ok(())
    }

    /// The same at the other end, into a new file.
    pub async fn receive_file(&mut self, path: &Path, bytes: u64) -> Result<(), LineError> {
        let failed = failed("write", path);
        let mut file = File::create_new(path).await.map_err(&failed)?;
        let mut left = bytes;
        while left > 0 {
            let part = match self.hear(PART_WAIT).await? {
                Message::Part(Part { bytes }) => bytes,
                other => return Err(LineError::Unexpected(other.name())),
            };
            left = left.checked_sub(part.len() as u64).ok_or(LineError::TooMuch)?;
            file.write_all(&part).await.map_err(&failed)?;
        }
        file.flush().await.map_err(&failed)
    }

    /// After the last word: waits until it has arrived.
    pub async fn finish(self, wait: Duration) -> Result<(), LineError> {
        Ok(self.sender.finish(wait).await?)
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> LineError {
    let path = path.display().to_string();
    move |source| LineError::File { action, path: path.clone(), source }
}
