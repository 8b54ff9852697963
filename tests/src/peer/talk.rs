//! A control stream, for somebody who says what he likes.

use anyhow::{Context, Result, bail};
use link::{Connection, Control, FrameReceiver, FrameSender};
use protocol::control::{self, Decoder};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::stream::{self, Role, StreamHead};
use protocol::{Message, MigrationId, framing};
use std::time::Duration;

/// What one frame of the link carries.
const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX + 16;

/// For the next word. A test has given up long before.
const SILENCE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Talk {
    sender: FrameSender,
    receiver: FrameReceiver,
    decoder: Decoder,
}

impl Talk {
    /// As a source: says which migration it is about.
    pub async fn open(connection: &Connection, migration: MigrationId) -> Result<Self> {
        let control = connection.open_control(0, PAYLOAD_BYTES_MAX, SILENCE_MAX).await?;
        let Control { mut sender, receiver, .. } = control;
        let role = Some(Role::Control(stream::Control {}));
        let mut head = Vec::new();
        framing::encode(&StreamHead { migration, role }, &mut head)?;
        sender.send(head.into(), SILENCE_MAX).await?;
        Ok(Self { sender, receiver, decoder: Decoder::new() })
    }

    /// As a destination: the next stream, and what it is for.
    pub async fn accept(connection: &Connection) -> Result<(Role, Self)> {
        let control = connection.accept_control(PAYLOAD_BYTES_MAX, SILENCE_MAX).await?;
        let Control { sender, mut receiver, .. } = control;
        let mut frames = framing::Decoder::new();
        let head = loop {
            if let Some(head) = frames.next_frame::<StreamHead>()? {
                break head;
            }
            let Some(bytes) = receiver.receive(SILENCE_MAX).await? else { bail!("no first word") };
            frames.push(&bytes);
        };
        let role = head.role.context("a stream without a role")?;
        Ok((role, Self { sender, receiver, decoder: Decoder::after(frames) }))
    }

    pub async fn say(&mut self, message: Message) -> Result<()> {
        let mut wire = Vec::new();
        control::encode(message, &mut wire)?;
        Ok(self.sender.send(wire.into(), SILENCE_MAX).await?)
    }

    /// None when the other side has said everything.
    pub async fn hear(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(Some(message));
            }
            match self.receiver.receive(SILENCE_MAX).await? {
                Some(bytes) => self.decoder.push(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// Says no more, and hears what is still to come.
    pub async fn listen_only(self) -> Result<Vec<Message>> {
        let Self { sender, mut receiver, mut decoder } = self;
        sender.finish(SILENCE_MAX).await?;
        while let Some(bytes) = receiver.receive(SILENCE_MAX).await? {
            decoder.push(&bytes);
        }
        let mut heard = Vec::new();
        while let Some(message) = decoder.next_message()? {
            heard.push(message);
        }
        Ok(heard)
    }
}
