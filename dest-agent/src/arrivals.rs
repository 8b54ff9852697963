//! Connections and their streams: each says in its first frame what it is for, and goes there.

use crate::bulk::BulkStream;
use crate::control::{ControlStream, PAYLOAD_BYTES_MAX};
use crate::copies;
use crate::faults::FaultStream;
use crate::registry::{CONNECTIONS_MAX, Registry, TurnedAway};
use crate::report;
use crate::session::Event;
use link::{BulkReceiver, Connection, Control, LinkError};
use protocol::framing::{self, FrameError};
use protocol::limits::{FAULT_FRAME_BYTES_MAX, HELLO_WAIT};
use protocol::stream::{Role, StreamError, StreamHead};
use source_agent::copies::Line;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Heads are far shorter, and nothing else is read before one is there.
const HEAD_BYTES_MAX: usize = 4 << 10;
/// For the next stream. A connection that carries none is ended by the link when its peer is gone,
/// and by its peer when it is done.
const NEXT_STREAM_WAIT: Duration = Duration::from_hours(24 * 365);

/// Control streams that a connection may have in its life: a source opens one, and another
/// connection for the next.
const CONTROL_STREAMS_MAX: u32 = 64;
/// Bulk streams, of which a migration opens a new set when it begins to push again.
const BULK_STREAMS_MAX: u32 = 1024;

/// What closes a connection that breaks the rules.
const MISBEHAVED: u32 = link::CALLER_CODES;

#[derive(Debug, thiserror::Error)]
enum Unwelcome {
    #[error("read the first word of a stream")]
    Link(#[from] LinkError),
    #[error("read the first word of a stream")]
    Frame(#[from] FrameError),
    #[error("understand the first word of a stream")]
    Head(#[from] StreamError),
    #[error("a stream ended before its first word")]
    Silent,
    #[error("a stream did not say in time what it is for")]
    Slow,
    #[error("a stream of one kind says that it is of another")]
    Mistaken,
    #[error("there are more streams than a migration has")]
    TooMany,
    #[error("find the migration of a stream")]
    TurnedAway(#[from] TurnedAway),
}

/// Takes in the streams of one connection until it ends.
pub async fn welcome(connection: Connection, registry: Arc<Registry>) {
    let from = connection.address();
    let Some(_counted) = registry.count_in(connection.fingerprint()) else {
        tracing::warn!(%from, "turned away: {CONNECTIONS_MAX} connections of one source");
        connection.close(MISBEHAVED, "too many connections");
        return;
    };
    tracing::debug!(%from, "a source connected");
    // Accepting may lose a stream when it is cancelled, so each kind has a task of its own.
    let bulk = tokio::spawn(accept_bulk(connection.clone(), Arc::clone(&registry)));
    let end = accept_control(&connection, &registry).await;
    tracing::debug!(%from, "a source left: {}", report::chain(&end));
    bulk.abort();
}

/// A connection lives on for as long as somebody has a part of it, so it is ended by name.
fn end_silent(connection: &Connection) {
    tracing::warn!(from = %connection.address(), "a source connected without a first word");
    connection.close(MISBEHAVED, "not a word");
}

async fn accept_control(connection: &Connection, registry: &Arc<Registry>) -> LinkError {
    let mut wait = HELLO_WAIT;
    let mut left = CONTROL_STREAMS_MAX;
    loop {
        let stream = match connection.accept_control(PAYLOAD_BYTES_MAX, wait).await {
            Ok(stream) => stream,
            Err(error) => {
                if matches!(error, LinkError::TimedOut { .. }) && wait == HELLO_WAIT {
                    end_silent(connection);
                }
                return error;
            }
        };
        wait = NEXT_STREAM_WAIT;
        left = match left.checked_sub(1) {
            Some(left) => left,
            None => {
                dismiss(connection, Err(Unwelcome::TooMany));
                return connection.closed().await;
            }
        };
        let (connection, registry) = (connection.clone(), Arc::clone(registry));
        tokio::spawn(async move {
            let welcomed = in_time(welcome_control(stream, &connection, &registry)).await;
            dismiss(&connection, welcomed);
        });
    }
}

async fn accept_bulk(connection: Connection, registry: Arc<Registry>) {
    let mut left = BULK_STREAMS_MAX;
    while let Ok(stream) = connection.accept_bulk(NEXT_STREAM_WAIT).await {
        left = match left.checked_sub(1) {
            Some(left) => left,
            None => return dismiss(&connection, Err(Unwelcome::TooMany)),
        };
        let (connection, registry) = (connection.clone(), Arc::clone(&registry));
        tokio::spawn(async move {
            let welcomed = in_time(welcome_bulk(stream, &connection, &registry)).await;
            dismiss(&connection, welcomed);
        });
    }
}

/// Each piece of a head may come in time and the whole of it never.
async fn in_time(welcomed: impl Future<Output = Result<(), Unwelcome>>) -> Result<(), Unwelcome> {
    tokio::time::timeout(HELLO_WAIT, welcomed).await.unwrap_or(Err(Unwelcome::Slow))
}

/// A peer that misbehaves loses its connection, and with it only its own migrations.
fn dismiss(connection: &Connection, welcomed: Result<(), Unwelcome>) {
    let Err(error) = welcomed else { return };
    // Its other streams have all the same to say, and it was said.
    if connection.is_closed() {
        return;
    }
    let cause = report::chain(&error);
    tracing::warn!(from = %connection.address(), "{cause}");
    connection.close(MISBEHAVED, &cause);
}

async fn welcome_control(
    stream: Control,
    connection: &Connection,
    registry: &Arc<Registry>,
) -> Result<(), Unwelcome> {
    let Control { sender, mut receiver, .. } = stream;
    let mut frames = framing::Decoder::limited(HEAD_BYTES_MAX);
    let head = loop {
        if let Some(head) = frames.next_frame::<StreamHead>()? {
            break head;
        }
        frames.push(&receiver.receive(HELLO_WAIT).await?.ok_or(Unwelcome::Silent)?);
    };
    let event = match head.check()? {
        Role::Control(_) => {
            let frames = relimited(frames, framing::Decoder::new());
            Event::Control(ControlStream {
                connection: connection.clone(),
                sender,
                receiver,
                frames,
            })
        }
        Role::Faults(_) => {
            let frames = relimited(frames, framing::Decoder::limited(FAULT_FRAME_BYTES_MAX));
            Event::Faults(FaultStream { connection: connection.clone(), sender, receiver, frames })
        }
        Role::Copies(_) => {
            let frames = relimited(frames, framing::Decoder::new());
            let line = Line::new(sender, receiver, frames);
            let taking =
                copies::take_in(line, connection.clone(), head.migration, registry.agent());
            tokio::spawn(taking);
            return Ok(());
        }
        Role::Bulk(_) => return Err(Unwelcome::Mistaken),
    };
    Ok(registry.deliver(head.migration, connection.fingerprint(), event)?)
}

/// What came behind the head is read by the rules of what the stream is for.
fn relimited(mut from: framing::Decoder, mut to: framing::Decoder) -> framing::Decoder {
    to.push(&from.take_unframed(usize::MAX));
    to
}

async fn welcome_bulk(
    mut receiver: BulkReceiver,
    connection: &Connection,
    registry: &Arc<Registry>,
) -> Result<(), Unwelcome> {
    let mut frames = framing::Decoder::limited(HEAD_BYTES_MAX);
    let head = loop {
        if let Some(head) = frames.next_frame::<StreamHead>()? {
            break head;
        }
        let bytes = receiver.read(HEAD_BYTES_MAX, HELLO_WAIT).await?;
        frames.push(&bytes.ok_or(Unwelcome::Silent)?);
    };
    let Role::Bulk(slices) = head.check()? else { return Err(Unwelcome::Mistaken) };
    let first = frames.take_unframed(usize::MAX);
    let event = Event::Bulk(BulkStream { receiver, slices, first });
    Ok(registry.deliver(head.migration, connection.fingerprint(), event)?)
}
