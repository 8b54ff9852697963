//! A reader that does not read costs a window and no more. Alone in its binary, and the only test
//! in it, since it measures the whole process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/pair.rs"]
mod pair;

use std::time::Duration;

use bytes::Bytes;
use link::{LinkError, Tuning};
use pair::{Pair, WAIT};

/// What both windows may hold, what the sockets and the runtime take, and the allocator's slack.
/// Both sides are in this process: 24 MiB to send and 12 MiB on one stream to read.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_stops_the_writer_and_not_the_host() {
    let pair = Pair::new(Tuning::bulk());
    let (source, destination) = pair.established().await;
    let before = resident_bytes();
    let mut sender = source.open_bulk(0, WAIT).await.unwrap();
    let mut receiver = destination.accept_bulk(WAIT).await.unwrap();

    let mut accepted: u64 = 0;
    let stuck = loop {
        // A fresh allocation each time: what the link keeps is what it costs.
        let mut chunk = [Bytes::from(vec![1; 256 << 10])];
        match sender.write(&mut chunk, Duration::from_millis(300)).await {
            Ok(()) => accepted += 256 << 10,
            Err(error) => break error,
        }
        assert!(accepted < 256 << 20, "nothing stops the writer");
    };
    assert!(matches!(stuck, LinkError::TimedOut { .. }), "{stuck:?}");
    assert!(accepted >= 8 << 20, "the windows hold only {accepted} bytes");

    // A gibibyte through a reader that sleeps now and then, with the peak looked at on the way.
    let writer = tokio::spawn(async move {
        let block = vec![2; 256 << 10];
        for _ in 0..2048 {
            sender.write(&mut [Bytes::from(block.clone())], WAIT).await.unwrap();
        }
        sender.finish(WAIT).await.unwrap();
    });
    let (mut read, mut peak) = (0u64, resident_bytes());
    while let Some(bytes) = receiver.read(1 << 20, WAIT).await.unwrap() {
        if read >> 25 != (read + bytes.len() as u64) >> 25 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            peak = peak.max(resident_bytes());
        }
        read += bytes.len() as u64;
    }
    writer.await.unwrap();
    assert!(read >= 512 << 20);
    let growth = peak.saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{} MiB grew", growth >> 20);
}
