//! The bulk streams: one task each, which writes what the engine's thread hands it.

use crate::news::{News, Post};
use crate::page_streams::{CHUNKS_MAX, STREAMS, WRITE_WAIT};
use bytes::Bytes;
use link::{BulkSender, Connection, LinkError};
use protocol::MigrationId;
use protocol::framing;
use protocol::stream::{Bulk, Role, StreamHead};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Bytes that the link has taken, of pages and of answers: how a session sees progress.
pub(crate) type Moved = Arc<AtomicU64>;

/// What a task on a line needs to tell how it goes.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(crate) line: u32,
    pub(crate) post: Post,
    pub(crate) moved: Moved,
}

impl Watch {
    pub(crate) async fn lost(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) {
        let cause = crate::ending::chain(error).join(": ");
        let _session_has_ended = self.post.send(News::Lost { line: self.line, cause }).await;
    }

    /// Of the connection that faults travel on, alone.
    pub(crate) async fn faults_lost(
        &self,
        error: &(dyn std::error::Error + Send + Sync + 'static),
    ) {
        let cause = crate::ending::chain(error).join(": ");
        let _session_has_ended = self.post.send(News::FaultsLost { line: self.line, cause }).await;
    }

    pub(crate) fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Opens every stream. The tasks end with their senders, or with the set.
pub(crate) async fn open(
    connection: &Connection,
    id: MigrationId,
    watch: &Watch,
    tasks: &mut JoinSet<()>,
) -> Result<Vec<mpsc::Sender<Bytes>>, LinkError> {
    let mut senders = Vec::new();
    for index in 0..STREAMS {
        let number = u16::try_from(index).expect("STREAMS is small");
        let mut stream = connection.open_bulk(number, WRITE_WAIT).await?;
        stream.write(&mut [head(id, index)], WRITE_WAIT).await?;
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        tasks.spawn(carry(stream, chunks, watch.clone()));
        senders.push(sender);
    }
    Ok(senders)
}

fn head(id: MigrationId, index: u32) -> Bytes {
    stream_head(id, Role::Bulk(Bulk { index, of: STREAMS }))
}

/// The first words of a stream, as a frame.
pub(crate) fn stream_head(migration: MigrationId, role: Role) -> Bytes {
    let mut bytes = Vec::new();
    framing::encode(&StreamHead { migration, role: Some(role) }, &mut bytes)
        .expect("a stream's head is a few bytes");
    bytes.into()
}

async fn carry(mut stream: BulkSender, mut chunks: mpsc::Receiver<Bytes>, watch: Watch) {
    while let Some(chunk) = chunks.recv().await {
        let bytes = chunk.len();
        if let Err(error) = stream.write(&mut [chunk], WRITE_WAIT).await {
            watch.lost(&error).await;
            return;
        }
        watch.moved(bytes);
    }
    // Who has sent everything finishes; when the connection is gone there is nobody to tell.
    let _connection_is_gone = stream.finish(WRITE_WAIT).await;
}
