//! The control stream: whole messages out, whole messages in.

use crate::bulk::{Watch, stream_head};
use crate::news::News;
use bytes::Bytes;
use link::{Connection, Control, FrameReceiver, FrameSender, LinkError};
use protocol::control::{self, Decoder};
use protocol::limits::{FRAME_BYTES_MAX, HELLO_WAIT, LAZY_WAIT};
use protocol::stream::{self, Role};
use protocol::{Message, MigrationId};
use std::time::Duration;
use tokio::task::JoinSet;

/// What one frame of the link carries of the control stream's bytes.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Room for a message in the windows. A peer that takes nothing for so long is as good as gone.
const SEND_WAIT: Duration = Duration::from_secs(15);

/// A tree may stand still until this is said, and the link may be why it is given up.
const ABORT_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Control(#[from] control::ControlError),
}

#[derive(Debug)]
pub(crate) struct ControlSender(FrameSender);

/// Opens the stream and lets a task pass on what comes in.
pub(crate) async fn open(
    connection: &Connection,
    id: MigrationId,
    watch: &Watch,
    tasks: &mut JoinSet<()>,
) -> Result<ControlSender, LinkError> {
    let control = connection.open_control(0, FRAME_BYTES_MAX + 16, HELLO_WAIT).await?;
    let Control { mut sender, receiver, .. } = control;
    sender.send(stream_head(id, Role::Control(stream::Control {})), SEND_WAIT).await?;
    tasks.spawn(listen(receiver, watch.clone()));
    Ok(ControlSender(sender))
}

impl ControlSender {
    pub(crate) async fn send(&mut self, message: Message) -> Result<(), SendError> {
        let wait = if matches!(message, Message::Abort(_)) { ABORT_WAIT } else { SEND_WAIT };
        let mut bytes = Vec::new();
        control::encode(message, &mut bytes)?;
        let mut rest = Bytes::from(bytes);
        while !rest.is_empty() {
            let payload = rest.split_to(rest.len().min(PAYLOAD_BYTES_MAX));
            self.0.send(payload, wait).await?;
        }
        Ok(())
    }

    /// Waits until the last word has arrived.
    pub(crate) async fn finish(self, wait: Duration) -> Result<(), LinkError> {
        self.0.finish(wait).await
    }
}

async fn listen(mut receiver: FrameReceiver, watch: Watch) {
    let mut decoder = Decoder::new();
    loop {
        match receiver.receive(LAZY_WAIT).await {
            Ok(Some(bytes)) => decoder.push(&bytes),
            Ok(None) => return watch.lost(&Ended).await,
            Err(LinkError::TimedOut { .. }) => continue,
            Err(error) => return watch.lost(&error).await,
        }
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => pass_on(&watch, message).await,
                Ok(None) => break,
                Err(error) => return watch.lost(&error).await,
            }
        }
    }
}

async fn pass_on(watch: &Watch, message: Message) {
    let news = News::Heard { line: watch.line, message };
    let _session_has_ended = watch.post.send(news).await;
}

#[derive(Debug, thiserror::Error)]
#[error("the destination ended the conversation")]
struct Ended;
