//! How many bytes a second this link carries here: `throughput [MIB] [STREAMS] [cubic|bbr]`.
//!
//! Both ends are in this process, each on one thread of its own, over the loopback device. Set that
//! device's MTU to 1500 in a network namespace of its own to see what Ethernet would do.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use link::{Congestion, Connection, Identity, KnownHosts, LinkError, Listener, Tuning, connect};
use tokio::runtime;

const WAIT: Duration = Duration::from_secs(10);
const BLOCK: usize = 64 << 10;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, otherwise| {
        words.get(index).map_or(otherwise, |word: &String| word.parse().expect("a number"))
    };
    let (mib, streams) = (number(0, 1024), u16::try_from(number(1, 4)).expect("few streams"));
    let mut tuning = Tuning::bulk();
    if let Some(word) = words.get(2) {
        tuning.congestion = if word == "bbr" { Congestion::Bbr } else { Congestion::Cubic };
    }
    measure(mib << 20, streams, tuning);
}

fn measure(bytes: usize, streams: u16, tuning: Tuning) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let identity = Arc::new(Identity::load_or_create(home.path()).expect("an identity"));
    let (tell, told) = mpsc::channel();
    let serving = {
        let (identity, tuning) = (Arc::clone(&identity), tuning.clone());
        std::thread::spawn(move || run(destination(identity, tuning, streams, tell)))
    };
    let address = told.recv().expect("the destination listens");
    run(source(identity, tuning, address, bytes, streams));
    serving.join().expect("the destination ends");
}

fn run(side: impl Future<Output = Result<(), LinkError>>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(side).expect("the link holds");
}

async fn destination(
    identity: Arc<Identity>,
    tuning: Tuning,
    streams: u16,
    tell: mpsc::Sender<SocketAddr>,
) -> Result<(), LinkError> {
    let anywhere = "127.0.0.1:0".parse().expect("an address");
    let listener = Listener::bind(anywhere, &identity, Arc::new(|_| Ok(Vec::new())), &tuning)?;
    tell.send(listener.address()).expect("the source waits");
    let connection = listener.accept().await?.establish().await?;
    let mut tasks = Vec::new();
    for _ in 0..streams {
        tasks.push(tokio::spawn(drain(connection.clone())));
    }
    for task in tasks {
        task.await.expect("no panic")?;
    }
    connection.closed().await;
    Ok(())
}

async fn drain(connection: Connection) -> Result<(), LinkError> {
    let mut stream = connection.accept_bulk(WAIT).await?;
    let mut chunks = vec![Bytes::new(); 64];
    while stream.read_many(&mut chunks, WAIT).await?.is_some() {}
    Ok(())
}

async fn source(
    identity: Arc<Identity>,
    tuning: Tuning,
    address: SocketAddr,
    bytes: usize,
    streams: u16,
) -> Result<(), LinkError> {
    let mut known = KnownHosts::default();
    known.add("here", identity.fingerprint());
    let connection = connect("here", address, &identity, &known, &tuning).await?;
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for index in 0..streams {
        tasks.push(tokio::spawn(fill(connection.clone(), index, bytes / usize::from(streams))));
    }
    for task in tasks {
        task.await.expect("no panic")?;
    }
    report(bytes, begun.elapsed(), &connection);
    connection.close(16, "measured");
    connection.drain(WAIT).await
}

async fn fill(connection: Connection, index: u16, bytes: usize) -> Result<(), LinkError> {
    let mut stream = connection.open_bulk(index, WAIT).await?;
    let block = Bytes::from(vec![0x5a; BLOCK]);
    for _ in 0..bytes / BLOCK {
        stream.write(&mut [block.clone()], WAIT).await?;
    }
    stream.finish(WAIT).await
}

fn report(bytes: usize, took: Duration, connection: &Connection) {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let rate = bytes as f64 / took.as_secs_f64() / 1e9;
    println!("{rate:.2} GB/s; {:?}", connection.stats());
}
