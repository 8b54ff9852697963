//! The destination's door: strangers who knock, and those who stay in it, shut nobody out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/pair.rs"]
mod pair;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use link::{LinkError, Tuning, connect};
use pair::{HOST, Pair, identity};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Lets everybody in whom the listener lets in, and counts who comes as far as to be asked.
fn keep(pair: &Arc<Pair>) -> Arc<AtomicUsize> {
    let (pair, seen) = (Arc::clone(pair), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok(incoming) = pair.listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                // Kept until the peer closes: dropping it would close it from this side.
                if let Ok(connection) = incoming.establish().await {
                    connection.closed().await;
                }
            });
        }
    });
    seen
}

async fn knock(pair: Arc<Pair>) -> LinkError {
    knock_at(pair.listener.address(), &pair).await
}

async fn knock_at(address: SocketAddr, pair: &Pair) -> LinkError {
    connect(HOST, address, &identity(), &pair.known_hosts, &pair.tuning).await.unwrap_err()
}

/// One who proves that he receives at `from`, begins a handshake, and never goes on: of what the
/// destination says he hears the Retry and nothing else.
async fn stay_in_the_door(pair: Arc<Pair>, from: &'static str) -> LinkError {
    let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let outside = UdpSocket::bind((from, 0)).await.unwrap();
    outside.connect(pair.listener.address()).await.unwrap();
    let address = inside.local_addr().unwrap();
    let deaf = tokio::spawn(async move {
        let (mut packet, mut answer) = ([0; 2048], [0; 2048]);
        let mut caller = None;
        loop {
            tokio::select! {
                Ok((length, from)) = inside.recv_from(&mut packet) => {
                    caller = Some(from);
                    outside.send(&packet[..length]).await.unwrap();
                }
                Ok(length) = outside.recv(&mut answer) => {
                    let is_retry = answer[0] & 0xf0 == 0xf0;
                    if let Some(caller) = caller.filter(|_| is_retry) {
                        inside.send_to(&answer[..length], caller).await.unwrap();
                    }
                }
            }
        }
    });
    let refused = knock_at(address, &pair).await;
    deaf.abort();
    refused
}

/// Waits until they have taken all they get, which is eight, and one that was not asked for proof.
async fn crowd(pair: &Arc<Pair>, number: usize, from: &'static str) -> Vec<JoinHandle<LinkError>> {
    let seen = keep(pair);
    let one = |_| tokio::spawn(stay_in_the_door(Arc::clone(pair), from));
    let crowd = (0..number).map(one).collect();
    let begun = Instant::now();
    while seen.load(Ordering::Relaxed) < 9 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{seen:?} are in the door");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(seen.load(Ordering::Relaxed), 9);
    crowd
}

fn held_for(handshake_wait: Duration) -> Arc<Pair> {
    Arc::new(Pair::new(Tuning { handshake_wait, ..Tuning::bulk() }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_stays_in_the_door_leaves_room_for_other_addresses() {
    let pair = held_for(Duration::from_secs(60));
    let crowd = crowd(&pair, 100, "127.0.0.9").await;
    let source = pair.connect().await.unwrap();
    assert!(crowd.iter().all(|stranger| !stranger.is_finished()), "the crowd has left");
    drop(source);
    crowd.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_for_lack_of_places_comes_back_when_there_are_some() {
    let pair = held_for(Duration::from_secs(3));
    // The address of the source: it is behind the same one as the crowd, which has no more than the
    // places, so that nobody else waits for one.
    let crowd = crowd(&pair, 9, "127.0.0.1").await;
    let (address, known) = (pair.listener.address(), &pair.known_hosts);
    connect(HOST, address, &pair.source, known, &Tuning::bulk()).await.unwrap();
    for stranger in crowd {
        let left = stranger.await.unwrap();
        assert!(matches!(left, LinkError::Unreachable { .. }), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_for_lack_of_places_is_told_so() {
    let pair = held_for(Duration::from_secs(60));
    let crowd = crowd(&pair, 20, "127.0.0.1").await;
    let told = pair.connect().await.unwrap_err();
    assert!(matches!(told, LinkError::Busy { .. }), "{told:?}");
    assert!(told.to_string().contains("busy with too many connections just now"), "{told}");
    let address = pair.listener.address();
    let asked = link::fetch(HOST, address, &pair.tuning).await.unwrap_err();
    assert!(matches!(asked, LinkError::Busy { .. }), "{asked:?}");
    crowd.iter().for_each(JoinHandle::abort);
}

/// More strangers at once than the destination has handshakes for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_strangers_does_not_shut_the_door() {
    let pair = Arc::new(Pair::new(Tuning::bulk()));
    keep(&pair);
    let strangers: Vec<_> = (0..150).map(|_| tokio::spawn(knock(Arc::clone(&pair)))).collect();
    for stranger in strangers {
        let refused = stranger.await.unwrap();
        assert!(
            matches!(
                refused,
                LinkError::Unauthorised { .. }
                    | LinkError::Busy { .. }
                    | LinkError::Unreachable { .. }
            ),
            "{refused:?}"
        );
    }
    // What the crowd used up comes back while it is called again.
    pair.connect().await.unwrap();
}

/// RFC 9000 section 17.2.1. Versions of the form 0x?a?a?a?a are reserved and mean nothing (15).
#[tokio::test]
async fn no_draft_of_quic_is_spoken() {
    let pair = Pair::new(Tuning::bulk());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let draft_29 = 0xff00_001d_u32.to_be_bytes();
    let mut initial = [&[0xc0], &draft_29[..], &[8], &[1; 8], &[8], &[2; 8]].concat();
    initial.resize(1200, 0);
    socket.send_to(&initial, pair.listener.address()).await.unwrap();
    let mut answer = [0; 2048];
    let received = tokio::time::timeout(Duration::from_secs(30), socket.recv(&mut answer)).await;
    let answer = &answer[..received.unwrap().unwrap()];
    let (head, versions) = answer.split_at(1 + 4 + 1 + 8 + 1 + 8);
    assert!(head[0] & 0x80 != 0 && head[1..5] == [0; 4], "no Version Negotiation: {head:02x?}");
    assert_eq!((&head[6..14], &head[15..]), (&[2; 8][..], &[1; 8][..]));
    let versions = versions.chunks(4).map(|version| version.try_into().unwrap());
    let versions: Vec<u32> = versions.map(u32::from_be_bytes).collect();
    let meant: Vec<u32> =
        versions.iter().copied().filter(|version| version & 0x0f0f_0f0f != 0x0a0a_0a0a).collect();
    assert_eq!(meant, [1], "{versions:08x?}");
}
