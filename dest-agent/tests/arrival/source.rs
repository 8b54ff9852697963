//! A source that says what it is told to, and reads what it is answered.

use crate::Result;
use crate::agent::Agent;
use crate::recorded::{Record, Recorded};
use anyhow::{Context as _, bail, ensure};
use bytes::{Bytes, BytesMut};
use engine::memory::Run;
use engine::memory::page_set::PAGE_BYTES;
use link::{BulkSender, Connection, FrameReceiver, FrameSender, Identity, KnownHosts, Tuning};
use prost::Message as _;
use protocol::control::{self, Decoder};
use protocol::framing;
use protocol::limits::{FAULT_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use protocol::message::*;
use protocol::pages::{Codec, Encoder, slice_of, slices};
use protocol::stream::{Bulk, FaultEnvelope, FaultMessage, Faults, PageReply, Role, StreamHead};
use protocol::version::{Hello, PROTOCOL_MAX, PROTOCOL_MIN};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);
const STREAMS: u32 = 4;

pub(crate) struct Source {
    pub(crate) id: MigrationId,
    identity: Arc<Identity>,
    known: KnownHosts,
    address: SocketAddr,
    connection: Connection,
    sender: FrameSender,
    receiver: FrameReceiver,
    decoder: Decoder,
    bulk: Vec<(BulkSender, Encoder)>,
    offsets: (i64, i64),
}

/// A connection, and nothing else.
pub(crate) struct Dialled(Connection);

impl Dialled {
    pub(crate) async fn is_closed(&self) {
        self.0.closed().await;
    }

    /// A byte every now and then, and never the last.
    pub(crate) async fn drip_half_a_head(&self) {
        let Ok(mut stream) = self.0.open_bulk(0, WAIT).await else { return };
        for byte in [100, 0, 0, 0, 10, 1, 1, 1, 1, 1] {
            if stream.write(&mut [Bytes::copy_from_slice(&[byte])], WAIT).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// Control streams, each of a migration of its own. How many there were until the end.
    pub(crate) async fn open_streams(&self, count: usize) -> usize {
        let mut streams = Vec::new();
        while streams.len() < count {
            let Ok(mut stream) = self.0.open_control(0, FRAME_BYTES_MAX + 16, WAIT).await else {
                break;
            };
            let id = any_id().expect("a random id");
            let head = head(id, Role::Control(protocol::stream::Control {})).expect("a head");
            if stream.sender.send(head.into(), WAIT).await.is_err() {
                break;
            }
            // Finished, so that the next one has room.
            let _ = stream.sender.finish(Duration::ZERO).await;
            streams.push(());
        }
        streams.len()
    }
}

/// Answers faults until it is dropped.
pub(crate) struct Serving {
    answered: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
    connection: Connection,
}

impl Serving {
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// The fault connection breaks, and no other.
    pub(crate) fn cut(self) {
        self.connection.close(link::CALLER_CODES, "cut");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn any_id() -> Result<MigrationId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(text.trim().replace('-', "").parse()?)
}

impl Source {
    pub(crate) async fn connect(agent: &Agent) -> Result<Self> {
        let mut known = KnownHosts::default();
        known.add("agent", agent.fingerprint);
        Self::begin(any_id()?, Arc::clone(&agent.source), known, agent.address).await
    }

    pub(crate) async fn dial(agent: &Agent) -> Result<Dialled> {
        let mut known = KnownHosts::default();
        known.add("agent", agent.fingerprint);
        let (identity, tuning) = (&agent.source, Tuning::bulk());
        Ok(Dialled(link::connect("agent", agent.address, identity, &known, &tuning).await?))
    }

    /// Another migration of the same host.
    pub(crate) async fn connect_as_another(other: &Self) -> Result<Self> {
        let Self { identity, known, address, .. } = other;
        Self::begin(any_id()?, Arc::clone(identity), known.clone(), *address).await
    }

    /// The same migration over a new connection, to an agent that may have been restarted.
    pub(crate) async fn reconnect(&self, agent: &Agent) -> Result<Self> {
        let mut again =
            Self::begin(self.id, Arc::clone(&self.identity), self.known.clone(), agent.address)
                .await?;
        again.offsets = self.offsets;
        Ok(again)
    }

    async fn begin(
        id: MigrationId,
        identity: Arc<Identity>,
        known: KnownHosts,
        address: SocketAddr,
    ) -> Result<Self> {
        let connection =
            link::connect("agent", address, &identity, &known, &Tuning::bulk()).await?;
        let control = connection.open_control(0, FRAME_BYTES_MAX + 16, WAIT).await?;
        let link::Control { mut sender, receiver, .. } = control;
        sender.send(head(id, Role::Control(protocol::stream::Control {}))?.into(), WAIT).await?;
        Ok(Self {
            id,
            identity,
            known,
            address,
            connection,
            sender,
            receiver,
            decoder: Decoder::new(),
            bulk: Vec::new(),
            offsets: (0, 0),
        })
    }

    /// A source that gets as far as `go` does, and is killed: it says no goodbye.
    pub(crate) fn dies_after(
        agent: &Agent,
        go: impl AsyncFnOnce(&mut Self) -> Result + Send,
    ) -> Result {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let source = runtime.block_on(async {
                    let mut source = Self::connect(agent).await?;
                    go(&mut source).await.map(|()| source)
                });
                // With everything that could still send.
                runtime.shutdown_background();
                source.map(drop)
            });
            thread.join().expect("it does not panic")
        })
    }

    pub(crate) fn vanish(&self) {
        self.connection.close(link::CALLER_CODES, "gone");
    }

    pub(crate) async fn send(&mut self, message: Message) -> Result {
        let mut wire = Vec::new();
        control::encode(message, &mut wire)?;
        for chunk in wire.chunks(1 << 20) {
            self.sender.send(Bytes::copy_from_slice(chunk), WAIT).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(Some(message));
            }
            match self.receiver.receive(WAIT).await? {
                Some(bytes) => self.decoder.push(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// The next message of this name; those that say that all is well are passed over.
    pub(crate) async fn expect(&mut self, name: &str) -> Result<Message> {
        loop {
            let message =
                self.receive().await?.with_context(|| format!("the end before {name}"))?;
            match &message {
                message if message.name() == name => {}
                Message::Abort(abort) if name != "Decided" => {
                    bail!("{}", abort.failure.lines().collect::<Vec<_>>().join(": "))
                }
                Message::Refuse(refuse) => bail!("refused: {:?}", refuse.refusals),
                _ => continue,
            }
            return Ok(message);
        }
    }

    pub(crate) async fn is_let_go(&mut self) -> Result {
        while let Ok(Some(_)) = self.receive().await {}
        Ok(())
    }

    pub(crate) async fn hello(&mut self) -> Result {
        let hello =
            Hello { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, ..Hello::default() };
        self.send(Message::Hello(hello)).await?;
        self.expect("Hello").await.map(drop)
    }

    pub(crate) async fn send_offer(&mut self, recorded: &Recorded) -> Result {
        let inventory = recorded.inventory.encode_to_vec().into();
        let offer = Offer { migration: self.id, inventory, ..Offer::default() };
        self.send(Message::Offer(offer)).await
    }

    pub(crate) async fn offer(&mut self, recorded: &Recorded) -> Result {
        self.send_offer(recorded).await?;
        let Message::Accept(accept) = self.expect("Accept").await? else { unreachable!() };
        let clocks = recorded.image.clocks.context("clocks")?;
        self.offsets = (
            clocks.monotonic_ns - accept.monotonic_ns.cast_signed(),
            clocks.boottime_ns - accept.boottime_ns.cast_signed(),
        );
        Ok(())
    }

    pub(crate) async fn stage(&mut self, recorded: &Recorded) -> Result {
        let (monotonic_offset_ns, boottime_offset_ns) = self.offsets;
        let layout = recorded.layout.encode_to_vec().into();
        let stage = Stage { layout, more: false, monotonic_offset_ns, boottime_offset_ns };
        self.send(Message::Stage(stage)).await?;
        self.expect("Staged").await.map(drop)
    }

    pub(crate) async fn open_bulk(&mut self) -> Result {
        for index in 0..STREAMS {
            let mut stream = self.connection.open_bulk(u16::try_from(index)?, WAIT).await?;
            let head = head(self.id, Role::Bulk(Bulk { index, of: STREAMS }))?;
            stream.write(&mut [head.into()], WAIT).await?;
            self.bulk.push((stream, Encoder::new(Codec::Zstd)?));
        }
        Ok(())
    }

    pub(crate) async fn begin_round(&mut self, round: u32) -> Result {
        self.send(Message::RoundBegin(RoundBegin { round, ..RoundBegin::default() })).await
    }

    pub(crate) async fn round(&mut self, round: u32, records: &[Record]) -> Result {
        self.begin_round(round).await?;
        self.send_records(round, records).await?;
        self.send(Message::RoundEnd(RoundEnd { round, ..RoundEnd::default() })).await
    }

    /// On their streams, with an end of the round on each.
    pub(crate) async fn send_records(&mut self, round: u32, records: &[Record]) -> Result {
        let mut wires = vec![BytesMut::new(); self.bulk.len()];
        let of = u32::try_from(wires.len())?;
        for record in records {
            let (space, address) = record.place();
            for run in slices(space, address, record.pages()) {
                let stream = slice_of(space, run.address, of) as usize;
                let encoder = &mut self.bulk[stream].1;
                record.encode(run.address, run.pages.into(), encoder, &mut wires[stream]);
            }
        }
        for ((stream, encoder), mut wire) in self.bulk.iter_mut().zip(wires) {
            encoder.end(round, &mut wire);
            stream.write(&mut [wire.freeze()], WAIT).await?;
        }
        Ok(())
    }

    pub(crate) async fn image(&mut self, recorded: &Recorded) -> Result {
        let image = recorded.image.encode_to_vec().into();
        self.send(Message::Image(Image { image, more: false })).await
    }

    pub(crate) async fn handover(&mut self) -> Result {
        self.send(Message::Handover(Handover { migration: self.id })).await
    }

    pub(crate) async fn inquire(&mut self) -> Result {
        self.send(Message::Inquire(Inquire { migration: self.id })).await
    }

    pub(crate) async fn done(&mut self) -> Result {
        self.send(Message::Done(Done {})).await
    }

    pub(crate) async fn abort(&mut self) -> Result {
        let (side, phase) = (protocol::Side::Source, protocol::Phase::Ready);
        let failure = protocol::Failure::new(side, phase, "go on with", "the test");
        self.send(Message::Abort(Abort { failure, is_lost: false })).await
    }

    /// Everything that is missing, with the end of the round.
    pub(crate) async fn push(&mut self, round: u32, recorded: &Recorded) -> Result {
        let records: Vec<Record> = recorded
            .later
            .iter()
            .map(|(&(space, address), page)| Record::Data { space, address, bytes: page.clone() })
            .collect();
        self.send_records(round, &records).await?;
        self.send(Message::PushDone(PushDone {})).await
    }

    pub(crate) async fn push_nothing(&mut self, round: u32) -> Result {
        self.send_records(round, &[]).await?;
        self.send(Message::PushDone(PushDone {})).await
    }

    pub(crate) async fn serve_faults(&self, recorded: &Recorded) -> Result<Serving> {
        let (connection, sender, receiver) = self.open_faults().await?;
        let answered = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&answered);
        let recorded = Recorded {
            inventory: recorded.inventory.clone(),
            layout: recorded.layout.clone(),
            image: recorded.image.clone(),
            records: Vec::new(),
            missing: recorded.missing.clone(),
            later: recorded.later.clone(),
        };
        let alive = connection.clone();
        let task = tokio::spawn(async move {
            let _alive = alive;
            if let Err(error) = answer(sender, receiver, &recorded, &counting).await {
                eprintln!("serving faults ended: {error:#}");
            }
        });
        Ok(Serving { answered, task, connection })
    }

    async fn open_faults(&self) -> Result<(Connection, FrameSender, FrameReceiver)> {
        let connection = self.connection.connect_again(&self.identity, &Tuning::faults()).await?;
        let stream = connection.open_control(0, FRAME_BYTES_MAX + 16, WAIT).await?;
        let link::Control { mut sender, receiver, .. } = stream;
        sender.send(head(self.id, Role::Faults(Faults {}))?.into(), WAIT).await?;
        Ok((connection, sender, receiver))
    }

    /// A fault connection that lives, and of which nobody reads what is asked for. Returns when
    /// the destination has ended it.
    pub(crate) async fn turn_a_deaf_ear(&self) -> Result<tokio::task::JoinHandle<()>> {
        let (connection, sender, receiver) = self.open_faults().await?;
        drop(receiver);
        Ok(tokio::spawn(async move {
            let _alive = sender;
            connection.closed().await;
        }))
    }

    /// Answers the first fault with no page at all.
    pub(crate) async fn serve_nothing(&self) -> Result<tokio::task::JoinHandle<Result>> {
        let (connection, mut sender, mut receiver) = self.open_faults().await?;
        Ok(tokio::spawn(async move {
            let mut frames = framing::Decoder::limited(FAULT_FRAME_BYTES_MAX);
            let envelope = loop {
                if let Some(envelope) = frames.next_frame::<FaultEnvelope>()? {
                    break envelope;
                }
                frames.push(&receiver.receive(WAIT).await?.context("a request")?);
            };
            let FaultMessage::PageRequest(request) = envelope.check()? else { bail!("a reply") };
            let reply = PageReply { sequence: request.sequence, records_bytes: 0 };
            let message = Some(FaultMessage::PageReply(reply));
            let mut wire = Vec::new();
            framing::encode(&FaultEnvelope { message }, &mut wire)?;
            sender.send(wire.into(), WAIT).await?;
            connection.closed().await;
            Ok(())
        }))
    }
}

async fn answer(
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
    recorded: &Recorded,
    answered: &AtomicU64,
) -> Result {
    let mut frames = framing::Decoder::limited(FAULT_FRAME_BYTES_MAX);
    let mut encoder = Encoder::new(Codec::Plain)?;
    while let Some(bytes) = receiver.receive(WAIT * 10).await? {
        frames.push(&bytes);
        while let Some(envelope) = frames.next_frame::<FaultEnvelope>()? {
            let FaultMessage::PageRequest(request) = envelope.check()? else {
                bail!("a destination answers")
            };
            let mut records = BytesMut::new();
            let run = Run { address: request.address, pages: request.pages.into() };
            for record in recorded.answer(request.space, run) {
                record.encode(record.place().1, 1, &mut encoder, &mut records);
            }
            ensure!(!records.is_empty(), "asked for what is not missing: {request:?}");
            let records_bytes = u32::try_from(records.len())?;
            let reply = PageReply { sequence: request.sequence, records_bytes };
            let message = Some(FaultMessage::PageReply(reply));
            let mut wire = Vec::new();
            framing::encode(&FaultEnvelope { message }, &mut wire)?;
            wire.extend_from_slice(&records);
            sender.send(wire.into(), WAIT).await?;
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn head(migration: MigrationId, role: Role) -> Result<Vec<u8>> {
    let mut wire = Vec::new();
    framing::encode(&StreamHead { migration, role: Some(role) }, &mut wire)?;
    Ok(wire)
}

impl Record {
    fn place(&self) -> (u32, u64) {
        match *self {
            Self::Data { space, address, .. }
            | Self::Zero { space, address, .. }
            | Self::Dropped { space, address, .. } => (space, address),
        }
    }

    fn pages(&self) -> u64 {
        match self {
            Self::Data { bytes, .. } => bytes.len() as u64 / PAGE_BYTES,
            Self::Zero { pages, .. } | Self::Dropped { pages, .. } => *pages,
        }
    }

    /// A part of it that has one stream.
    fn encode(&self, at: u64, pages: u64, encoder: &mut Encoder, out: &mut BytesMut) {
        match self {
            Self::Data { space, address, bytes } => {
                let from = usize::try_from(at - address).expect("within a record");
                let length = usize::try_from(pages * PAGE_BYTES).expect("within a record");
                encoder.data(*space, at, &bytes[from..from + length], out);
            }
            Self::Zero { space, .. } => encoder.zero(*space, at, pages, out),
            Self::Dropped { space, .. } => encoder.dropped(*space, at, pages, out),
        }
    }
}
