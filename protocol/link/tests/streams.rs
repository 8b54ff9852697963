//! What goes in comes out: bulk bytes, frames, and the ends of streams.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/pair.rs"]
mod pair;

use std::time::Duration;

use blake3::Hasher;
use bytes::Bytes;
use link::{Connection, Control, LinkError, Tuning};
use pair::{Pair, WAIT};

const FRAME_BYTES_MAX: usize = 1 << 20;

async fn control(source: &Connection, destination: &Connection) -> (Control, Control) {
    let (here, there) = tokio::join!(
        source.open_control(0, FRAME_BYTES_MAX, WAIT),
        destination.accept_control(FRAME_BYTES_MAX, WAIT)
    );
    (here.unwrap(), there.unwrap())
}

/// Bytes that differ at every place and between streams, so that nothing can be swapped unseen.
fn block(stream: u16, number: u32) -> Bytes {
    let seed = [u32::from(stream).to_le_bytes(), number.to_le_bytes()].concat();
    let mut bytes = vec![0; 64 << 10];
    Hasher::new().update(&seed).finalize_xof().fill(&mut bytes);
    bytes.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_of_a_gibibyte_on_four_streams_arrives_byte_for_byte() {
    const BLOCKS: u32 = 1024;
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;

    let sending: Vec<_> = (0..4).map(|index| tokio::spawn(send(source.clone(), index))).collect();
    let receiving: Vec<_> = (0..4).map(|_| tokio::spawn(receive(destination.clone()))).collect();

    let mut sent = Vec::new();
    for task in sending {
        sent.push(task.await.unwrap());
    }
    let mut received = Vec::new();
    for task in receiving {
        received.push(task.await.unwrap());
    }
    received.sort_by_key(|(index, ..)| *index);
    assert_eq!(received, sent);
    assert!(sent.iter().all(|(_, bytes, _)| *bytes == u64::from(BLOCKS) << 16));
    assert!(source.stats().sent_bytes > 256 << 20);
    assert!(source.stats().mtu_bytes > 1200, "{:?}", source.stats());

    async fn send(connection: Connection, index: u16) -> (u16, u64, blake3::Hash) {
        let mut stream = connection.open_bulk(index, WAIT).await.unwrap();
        let mut hasher = Hasher::new();
        for number in 0..BLOCKS / 2 {
            let mut chunks = [block(index, 2 * number), block(index, 2 * number + 1)];
            for chunk in &chunks {
                hasher.update(chunk);
            }
            stream.write(&mut chunks, WAIT).await.unwrap();
        }
        stream.finish(WAIT).await.unwrap();
        (index, hasher.count(), hasher.finalize())
    }

    async fn receive(connection: Connection) -> (u16, u64, blake3::Hash) {
        let mut stream = connection.accept_bulk(WAIT).await.unwrap();
        let mut chunks = vec![Bytes::new(); 32];
        let mut hasher = Hasher::new();
        while let Some(count) = stream.read_many(&mut chunks, WAIT).await.unwrap() {
            for chunk in &chunks[..count] {
                hasher.update(chunk);
            }
        }
        (stream.index(), hasher.count(), hasher.finalize())
    }
}

#[tokio::test]
async fn frames_of_every_size_arrive_whole_and_in_order_both_ways() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    let (mut here, mut there) = control(&source, &destination).await;
    let sizes = [0, 1, 1199, 1200, 65_537, FRAME_BYTES_MAX, 0, 3];

    let frames: Vec<Bytes> =
        sizes.iter().map(|size| block(0, 0).repeat(16)[..*size].to_vec().into()).collect();
    let echo = tokio::spawn(async move {
        while let Some(frame) = there.receiver.receive(WAIT).await.unwrap() {
            there.sender.send(frame, WAIT).await.unwrap();
        }
        there.sender.finish(WAIT).await.unwrap();
    });
    for frame in &frames {
        here.sender.send(frame.clone(), WAIT).await.unwrap();
        assert_eq!(here.receiver.receive(WAIT).await.unwrap().as_ref(), Some(frame));
    }
    here.sender.finish(WAIT).await.unwrap();
    assert_eq!(here.receiver.receive(WAIT).await.unwrap(), None);
    echo.await.unwrap();
}

#[tokio::test]
async fn a_frame_longer_than_agreed_is_refused_on_both_sides() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    let (here, there) =
        tokio::join!(source.open_control(0, 2048, WAIT), destination.accept_control(1024, WAIT));
    let (mut here, mut there) = (here.unwrap(), there.unwrap());

    let refused = here.sender.send(vec![0; 2049].into(), WAIT).await.unwrap_err();
    assert!(matches!(refused, LinkError::FrameTooLong { bytes: 2049, bytes_max: 2048, .. }));

    here.sender.send(vec![0; 2048].into(), WAIT).await.unwrap();
    let refused = there.receiver.receive(WAIT).await.unwrap_err();
    assert!(matches!(refused, LinkError::FrameTooLong { bytes: 2048, bytes_max: 1024, .. }));
}

#[tokio::test]
async fn waiting_for_a_frame_in_vain_loses_nothing() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    let (mut here, mut there) = control(&source, &destination).await;

    let short = Duration::from_millis(20);
    let nothing = there.receiver.receive(short).await.unwrap_err();
    assert!(matches!(nothing, LinkError::TimedOut { waited, .. } if waited == short));

    here.sender.send("after all".into(), WAIT).await.unwrap();
    assert_eq!(there.receiver.receive(WAIT).await.unwrap(), Some("after all".into()));
}

#[tokio::test]
async fn a_frame_that_timed_out_half_sent_is_finished_by_the_next() {
    let tuning = Tuning { send_bytes_max: 4096, ..Tuning::bulk() };
    let tuning = Tuning { receive_bytes_max: 4096, stream_receive_bytes_max: 4096, ..tuning };
    let pair = Pair::new(tuning);
    let (source, destination) = pair.established().await;
    let (mut here, mut there) = control(&source, &destination).await;

    let long = block(1, 1);
    let stuck = here.sender.send(long.clone(), Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(stuck, LinkError::TimedOut { .. }));

    let next = tokio::spawn(async move {
        here.sender.send("next".into(), WAIT).await?;
        here.sender.finish(WAIT).await
    });
    assert_eq!(there.receiver.receive(WAIT).await.unwrap(), Some(long));
    assert_eq!(there.receiver.receive(WAIT).await.unwrap(), Some("next".into()));
    next.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_sender_that_is_dropped_does_not_look_finished() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    let mut sender = source.open_bulk(3, WAIT).await.unwrap();
    sender.write(&mut ["half of it".into()], WAIT).await.unwrap();
    let mut receiver = destination.accept_bulk(WAIT).await.unwrap();
    drop(sender);

    let end = loop {
        match receiver.read(1024, WAIT).await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(LinkError::Abandoned { code: 2, .. })), "{end:?}");
}

#[tokio::test]
async fn a_receiver_that_is_dropped_tells_the_sender() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    let mut sender = source.open_bulk(0, WAIT).await.unwrap();
    drop(destination.accept_bulk(WAIT).await.unwrap());

    let refused = loop {
        if let Err(error) = sender.write(&mut [block(0, 0)], WAIT).await {
            break error;
        }
    };
    assert!(matches!(refused, LinkError::Abandoned { .. }), "{refused:?}");
}

#[tokio::test]
async fn the_peer_learns_why_a_connection_was_closed() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    let (_here, mut there) = control(&source, &destination).await;
    source.close(42, "the operator cancelled");
    source.drain(WAIT).await.unwrap();

    let told = there.receiver.receive(WAIT).await.unwrap_err();
    let LinkError::Closed { code: 42, reason, .. } = told else { panic!("{told:?}") };
    assert_eq!(reason, "the operator cancelled");
    assert!(matches!(source.closed().await, LinkError::ClosedHere { .. }));
}

#[tokio::test]
async fn a_bulk_stream_is_not_taken_for_a_control_stream() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    let _sender = destination.open_bulk(u16::MAX, WAIT).await.unwrap();
    let none = source.accept_control(16, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(none, LinkError::TimedOut { .. }));
    assert_eq!(source.accept_bulk(WAIT).await.unwrap().index(), u16::MAX);
}
