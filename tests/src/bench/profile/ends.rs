//! Both ends of the bare link: the agents' own, with their tuning and their cipher, and nothing but bytes.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use link::{AuthorizedHosts, Connection, Identity, KnownHosts, Listener, Tuning, connect};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// As the source has them.
const STREAMS: u16 = 4;
/// One write of the source to the link.
const CHUNK_BYTES: usize = 256 << 10;
/// As many packets as the destination takes off a stream at a time.
const PACKETS: usize = 32;
const WAIT: Duration = Duration::from_secs(60);
/// Anything that the link does not take for its own.
const MEASURED: u32 = link::CALLER_CODES;

/// Takes one connection and everything that comes, until the other end closes it.
pub fn link_sink(
    address: &str,
    config: &Path,
    listening: impl FnOnce() -> Result<()>,
) -> Result<()> {
    alone(async {
        let identity = Identity::load_or_create(config)?;
        let authorised = AuthorizedHosts::load(config)?;
        let authorised = Arc::new(move |shown: &_| Ok(authorised.admit(shown)?));
        let listener = Listener::bind(address.parse()?, &identity, authorised, &Tuning::bulk())?;
        listening()?;
        let connection = listener.accept().await?.establish().await?;
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            streams.spawn(drain(connection.clone()));
        }
        all(streams).await?;
        connection.closed().await;
        Ok(())
    })
}

async fn drain(connection: Connection) -> Result<()> {
    let mut stream = connection.accept_bulk(WAIT).await?;
    let mut packets = vec![Bytes::new(); PACKETS];
    while stream.read_many(&mut packets, WAIT).await?.is_some() {}
    Ok(())
}

/// Sends so many MiB to a [`link_sink`]. Returns when all of them were read there.
pub fn link_flood(host: &str, address: &str, config: &Path, mib: usize) -> Result<Duration> {
    alone(async {
        let identity = Identity::load_or_create(config)?;
        let (known, address) = (KnownHosts::load(config)?, address.parse::<SocketAddr>()?);
        let connection = connect(host, address, &identity, &known, &Tuning::bulk()).await?;
        let began = Instant::now();
        let mut streams = JoinSet::new();
        for index in 0..STREAMS {
            let chunks = (mib << 20) / CHUNK_BYTES / usize::from(STREAMS);
            streams.spawn(fill(connection.clone(), index, chunks));
        }
        all(streams).await?;
        let took = began.elapsed();
        connection.close(MEASURED, "measured");
        connection.drain(WAIT).await?;
        Ok(took)
    })
}

async fn fill(connection: Connection, index: u16, chunks: usize) -> Result<()> {
    let mut stream = connection.open_bulk(index, WAIT).await?;
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    for _ in 0..chunks {
        stream.write(&mut [chunk.clone()], WAIT).await?;
    }
    Ok(stream.finish(WAIT).await?)
}

async fn all(mut streams: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = streams.join_next().await {
        ended.context("a stream of the bare link")??;
    }
    Ok(())
}

/// On this thread: nothing is handed from one to another.
fn alone<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Keeps this process to the half of the processors that the agents keep to while they copy: `upper` is
/// the source's, `lower` the destination's. One is both.
pub fn keep_to_half(which: &str) -> Result<()> {
    let all = sched_getaffinity(Pid::from_raw(0)).context("ask for the processors")?;
    let all: Vec<usize> = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu) == Ok(true)).collect();
    ensure!(!all.is_empty(), "no processor that can be used");
    let size = (all.len() / 2).max(1);
    let half = match which {
        "lower" => &all[..size],
        "upper" => &all[all.len() - size..],
        other => bail!("there is no half {other:?}"),
    };
    let mut set = CpuSet::new();
    half.iter().try_for_each(|cpu| set.set(*cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set).context("keep to half of the processors")
}
