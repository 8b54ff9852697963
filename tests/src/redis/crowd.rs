//! Many clients at once, each with one connection for its whole life: a server that moves is to be
//! noticed by none of them.

use super::{Answer, Connection};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What all of them have seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CrowdReport {
    /// The wall clock when it was said, in microseconds since 1970.
    pub at_us: u64,
    pub acknowledged: u64,
    /// The longest that any of them waited for an answer since the last report, in microseconds.
    pub longest_stall_us: u64,
    /// Connections lost, writes lost, wrong answers.
    pub failures: Vec<String>,
}

#[derive(Debug, Default)]
struct Seen {
    acknowledged: AtomicU64,
    longest_stall_us: AtomicU64,
}

/// Lets `count` clients write and check until `is_over`, with a report every 100 ms.
pub fn run(
    address: &str,
    patience: Duration,
    count: usize,
    is_over: &AtomicBool,
    mut report: impl FnMut(CrowdReport) -> Result<()>,
) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(100);
    let seen = Seen::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|client| {
                let seen = &seen;
                scope.spawn(move || one(address, patience, client, is_over, seen))
            })
            .collect();
        while !is_over.load(Ordering::Relaxed) && !clients.iter().any(|one| one.is_finished()) {
            thread::sleep(INTERVAL);
            report(seen.so_far())?;
        }
        is_over.store(true, Ordering::Relaxed);
        let ends =
            clients.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("it panicked")));
        let failures = ends.filter_map(|end| end.err().map(|error| format!("{error:#}"))).collect();
        report(CrowdReport { failures, ..seen.so_far() })
    })
}

impl Seen {
    fn so_far(&self) -> CrowdReport {
        CrowdReport {
            at_us: now_us(),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            longest_stall_us: self.longest_stall_us.swap(0, Ordering::Relaxed),
            failures: Vec::new(),
        }
    }
}

fn now_us() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}

/// Raises a counter of its own, and reads back what it wrote: the server must have exactly that.
fn one(
    address: &str,
    patience: Duration,
    client: usize,
    is_over: &AtomicBool,
    seen: &Seen,
) -> Result<()> {
    let mut connection = Connection::open_patient(address, patience)?;
    // Another crowd may be at the same server, by another address of it.
    let key = format!("client:{address}:{client}");
    for value in 1_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let asked = Instant::now();
        write_and_check(&mut connection, &key, value)
            .with_context(|| format!("client {client}, write {value}"))?;
        let stall = u64::try_from(asked.elapsed().as_micros())?;
        seen.longest_stall_us.fetch_max(stall, Ordering::Relaxed);
        seen.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn write_and_check(connection: &mut Connection, key: &str, value: u64) -> Result<()> {
    let text = value.to_string();
    connection.set(key, text.as_bytes())?;
    let found = connection.get(key)?;
    ensure!(found == Answer::Value(text.into_bytes()), "it has {found:?}");
    Ok(())
}
