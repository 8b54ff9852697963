//! A peer that vanishes is noticed within the idle timeout, and not before.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/pair.rs"]
mod pair;

use std::time::{Duration, Instant};

use bytes::Bytes;
use link::{Connection, LinkError, Tuning};
use pair::{Pair, WAIT};
use tokio::runtime::{Builder, Runtime};

const IDLE: Duration = Duration::from_millis(600);

fn impatient() -> Tuning {
    Tuning { idle_timeout: IDLE, keep_alive: IDLE / 6, ..Tuning::bulk() }
}

/// A connection whose destination lives in a runtime of its own, to be killed with all it holds.
async fn doomed(pair: Pair) -> (Connection, Runtime) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = {
        let _inside = runtime.enter();
        let key = pair.source.fingerprint();
        let authorised = pair::only(key);
        link::Listener::bind(pair::anywhere(), &pair.destination, authorised, &pair.tuning).unwrap()
    };
    let pair = Pair { listener, ..pair };
    let address = pair.listener.address();
    let (tell, told) = tokio::sync::oneshot::channel();
    let listener = pair.listener;
    runtime.spawn(async move {
        let connection = listener.accept().await.unwrap().establish().await.unwrap();
        let _stream = connection.accept_bulk(WAIT).await.unwrap();
        tell.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    let connected =
        link::connect(pair::HOST, address, &pair.source, &pair.known_hosts, &pair.tuning).await;
    let connection = connected.unwrap();
    let mut stream = connection.open_bulk(0, WAIT).await.unwrap();
    stream.write(&mut [Bytes::from_static(b"begun")], WAIT).await.unwrap();
    told.await.unwrap();
    stream.finish(WAIT).await.unwrap();
    (connection, runtime)
}

/// As SIGKILL would: no task runs any more, and nothing says goodbye.
fn kill(runtime: Runtime) {
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_writer_learns_within_the_idle_timeout_that_its_peer_is_gone() {
    let (connection, runtime) = doomed(Pair::new(impatient())).await;
    let mut stream = connection.open_bulk(1, WAIT).await.unwrap();
    kill(runtime);
    let killed = Instant::now();

    let block = Bytes::from(vec![7; 1 << 20]);
    let end = loop {
        if let Err(error) = stream.write(&mut [block.clone()], WAIT).await {
            break error;
        }
    };
    assert!(matches!(end, LinkError::Lost { action: "send pages", .. }), "{end:?}");
    assert!(killed.elapsed() < WAIT / 2, "{:?}", killed.elapsed());
}

#[tokio::test]
async fn whoever_waits_learns_it_too() {
    let (connection, runtime) = doomed(Pair::new(impatient())).await;
    kill(runtime);
    let killed = Instant::now();
    let end = connection.accept_bulk(WAIT).await.unwrap_err();
    assert!(matches!(end, LinkError::Lost { .. }), "{end:?}");
    assert!(killed.elapsed() < WAIT / 2, "{:?}", killed.elapsed());
}

#[tokio::test]
async fn a_connection_that_only_idles_lives_on() {
    let pair = Pair::new(impatient());
    let (source, destination) = pair.established().await;
    tokio::time::sleep(3 * IDLE).await;
    let mut sender = source.open_bulk(9, WAIT).await.unwrap();
    sender.write(&mut [Bytes::from_static(b"still here")], WAIT).await.unwrap();
    assert_eq!(destination.accept_bulk(WAIT).await.unwrap().index(), 9);
}
