//! The fault connection: requests of programs that stand still, and their pages.

use crate::bulk::{Watch, stream_head};
use crate::page_streams::WRITE_WAIT;
use bytes::Bytes;
use link::{Connection, Control, FrameReceiver, FrameSender, Identity, LinkError, Tuning};
use protocol::MigrationId;
use protocol::framing::{self, Decoder};
use protocol::limits::{FAULT_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use protocol::stream::{FaultEnvelope, FaultMessage, Faults, PageReply, PageRequest, Role};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// More than a destination has threads that could wait; beyond it we are being flooded.
const REQUESTS_MAX: usize = 16 << 10;
const REPLIES_MAX: usize = 64;
/// For the word that every page is there to come on another connection, and to be written down.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);

/// The serving thread's end of it.
#[derive(Debug)]
pub(crate) struct FaultLine {
    pub(crate) requests: Receiver<PageRequest>,
    replies: mpsc::Sender<Bytes>,
}

impl FaultLine {
    /// Queues the answer. Without a link it is dropped: the destination asks again.
    pub(crate) fn reply(&self, sequence: u64, records: &[u8]) {
        let records_bytes = u32::try_from(records.len()).expect("an answer is 64 pages at most");
        let reply = FaultMessage::PageReply(PageReply { sequence, records_bytes });
        let mut bytes = Vec::with_capacity(records.len() + 32);
        framing::encode(&FaultEnvelope { message: Some(reply) }, &mut bytes)
            .expect("a reply's head is a few bytes");
        bytes.extend_from_slice(records);
        let _link_is_lost = self.replies.blocking_send(bytes.into());
    }
}

/// Connects a second time, beside the bulk pages, so that no fault waits behind them.
pub(crate) async fn open(
    bulk: &Connection,
    identity: &Identity,
    id: MigrationId,
    watch: &Watch,
    tasks: &mut JoinSet<()>,
) -> Result<FaultLine, LinkError> {
    let connection = bulk.connect_again(identity, &Tuning::faults()).await?;
    let control = connection.open_control(0, FRAME_BYTES_MAX + 16, WRITE_WAIT).await?;
    let Control { mut sender, receiver, .. } = control;
    sender.send(stream_head(id, Role::Faults(Faults {})), WRITE_WAIT).await?;
    let (asked, requests) = sync_channel(REQUESTS_MAX);
    let (replies, queued) = mpsc::channel(REPLIES_MAX);
    tasks.spawn(listen(receiver, asked, watch.clone()));
    tasks.spawn(answer(sender, queued, watch.clone(), connection));
    Ok(FaultLine { requests, replies })
}

async fn listen(mut receiver: FrameReceiver, asked: SyncSender<PageRequest>, watch: Watch) {
    let mut decoder = Decoder::limited(FAULT_FRAME_BYTES_MAX);
    loop {
        match receiver.receive(WRITE_WAIT).await {
            Ok(Some(bytes)) => decoder.push(&bytes),
            Ok(None) => return ended(&watch).await,
            Err(LinkError::TimedOut { .. }) => continue,
            Err(error) => return watch.faults_lost(&error).await,
        }
        if let Err(error) = pass_on(&mut decoder, &asked) {
            return watch.faults_lost(&*error).await;
        }
    }
}

/// Either the destination has every page, and says so on the control stream at the same time; or
/// it has lost what asks for pages, and nobody there would be answered until we dial again.
async fn ended(watch: &Watch) {
    tokio::time::sleep(FAREWELL_WAIT).await;
    watch.faults_lost(&Ended).await;
}

#[derive(Debug, thiserror::Error)]
#[error("the destination ended the connection for faults")]
struct Ended;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn pass_on(decoder: &mut Decoder, asked: &SyncSender<PageRequest>) -> Result<(), AnyError> {
    while let Some(envelope) = decoder.next_frame::<FaultEnvelope>()? {
        match envelope.check()? {
            FaultMessage::PageRequest(request) => {
                asked.try_send(request).map_err(|_| "more faults than can be waited for")?;
            }
            FaultMessage::PageReply(_) => return Err("a destination sends no pages".into()),
        }
    }
    Ok(())
}

/// Holds the connection for as long as there may be answers.
async fn answer(
    mut sender: FrameSender,
    mut queued: mpsc::Receiver<Bytes>,
    watch: Watch,
    _connection: Connection,
) {
    while let Some(reply) = queued.recv().await {
        let bytes = reply.len();
        if let Err(error) = sender.send(reply, WRITE_WAIT).await {
            return watch.faults_lost(&error).await;
        }
        watch.moved(bytes);
    }
    let _connection_is_gone = sender.finish(WRITE_WAIT).await;
}
