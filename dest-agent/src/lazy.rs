//! The lazy phase: the holder at its beginning, what is still missing, and its end.

use crate::faults::Faults;
use crate::gate::Gate;
use crate::left::numbers;
use crate::report;
use engine::image::{MissingPages, TreeImage};
use engine::memory::holder::{Holder, Kept};
use engine::memory::lazy::{LazyMemory, PageSource as _};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use prost::Message as _;
use protocol::limits::{FAULT_PAGES_MAX, ROUND_WAIT};
use protocol::message::Complete;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a tree may do without an agent before it is killed. systemd restarts one in 100 ms.
const GRACE_SECONDS: u32 = 30;
/// How long the holder may take to notice that our predecessor has died.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(5);
/// For the lazy memory of killed processes to notice that they are gone.
const END_WAIT: Duration = Duration::from_secs(5);
/// Requests made at a time for what was never pushed.
const REQUESTS_AT_ONCE: usize = 32;
/// How long these may take before they are made again.
const REQUEST_WAIT: Duration = Duration::from_secs(2);

/// Starts the process that keeps missing pages from becoming zeros when we die.
pub fn start_holder(socket: &Path) -> Result<Arc<Holder>, engine::Error> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("holder").arg("--socket").arg(socket);
    command.arg("--grace").arg(GRACE_SECONDS.to_string()).stdout(Stdio::null());
    let holder = Holder::spawn(&mut command)?;
    reap(holder.pid());
    Ok(Arc::new(holder))
}

/// Waits for the holder's end, however long that takes: it lives as long as pages are missing.
fn reap(pid: i32) {
    let waiting = std::thread::Builder::new().name("reap".to_owned());
    let spawned = waiting.spawn(move || {
        if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(Pid::from_raw(pid), None) {
            tracing::warn!(
                "the holder {pid} was ended by {signal}: its tree now dies with this agent"
            );
        }
    });
    if let Err(error) = spawned {
        tracing::warn!("wait for the holder {pid}: {error}");
    }
}

/// Takes over from an agent that died; `None` when there is no holder.
pub fn take_over(socket: &Path) -> Result<Option<(Holder, Vec<Kept>)>, engine::Error> {
    let limit = Instant::now() + TAKE_OVER_WAIT;
    loop {
        match Holder::take_over(socket) {
            Ok(taken) => return Ok(Some(taken)),
            Err(error) if is_absent(&error.source) => return Ok(None),
            Err(error) if Instant::now() > limit => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Of a tree whose processes were killed.
pub fn wait_for_end(memory: &LazyMemory) {
    match memory.wait(END_WAIT) {
        Ok(true) => {}
        Ok(false) => tracing::warn!("the memory of a discarded tree is still served"),
        Err(error) => tracing::warn!("end lazy memory: {}", report::chain(&error)),
    }
}

/// Waits until nothing is missing any more. `None` when that is not wanted any more.
pub fn wait_until_filled(
    memory: &LazyMemory,
    gate: &Gate,
) -> Option<Result<Complete, engine::Error>> {
    loop {
        match memory.wait(Duration::from_secs(1)) {
            Ok(true) => return Some(Ok(complete(memory))),
            Ok(false) if gate.is_over() => return None,
            Ok(false) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

fn complete(memory: &LazyMemory) -> Complete {
    let statistics = memory.statistics();
    tracing::info!(
        faults = statistics.faults,
        zero_faults = statistics.zero_faults,
        fault_pages = statistics.pages_by_fault,
        pushed_pages = statistics.pages_by_push,
        "every page is here"
    );
    Complete {
        faults: statistics.faults,
        fault_pages: statistics.pages_by_fault,
        pushed_pages: statistics.pages_by_push,
    }
}

/// What is still missing, as the source reads it: an image that has nothing else.
pub fn missing(memory: Option<&Arc<LazyMemory>>) -> Vec<u8> {
    let missing = memory.map(|memory| memory.missing()).unwrap_or_default();
    let runs =
        missing.iter().map(|(&space, pages)| MissingPages { space, runs: numbers(pages.runs()) });
    TreeImage { missing: runs.collect(), ..TreeImage::default() }.encode_to_vec()
}

/// Everything was pushed, and this is still missing: it is asked for, a little at a time so that
/// faults do not wait behind it.
pub fn ask_for_the_rest(memory: &LazyMemory, faults: &Faults, gate: &Gate) {
    while !gate.is_over() {
        let missing = memory.missing();
        if missing.is_empty() {
            return;
        }
        let pieces = missing.iter().flat_map(|(&space, pages)| {
            pages.runs().flat_map(move |run| {
                let piece = u64::from(FAULT_PAGES_MAX) * engine::memory::PAGE_BYTES;
                let step = usize::try_from(piece).unwrap_or(usize::MAX);
                (run.address..run.end()).step_by(step).map(move |at| (space, at, run.end()))
            })
        });
        for (space, at, end) in pieces.take(REQUESTS_AT_ONCE) {
            let pages = (end - at) / engine::memory::PAGE_BYTES;
            let pages = pages.min(FAULT_PAGES_MAX.into());
            faults.request(space, at, u32::try_from(pages).unwrap_or(FAULT_PAGES_MAX));
        }
        wait_for_answers(memory);
    }
}

fn wait_for_answers(memory: &LazyMemory) {
    let before = memory.missing_pages();
    let asked = (REQUESTS_AT_ONCE as u64) * u64::from(FAULT_PAGES_MAX);
    let enough = before.saturating_sub(asked);
    let limit = Instant::now() + REQUEST_WAIT;
    while memory.missing_pages() > enough && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the streams have ended the push, as long as they bring pages. Streams that were
/// cut never do, and then it is time to ask.
pub async fn wait_for_push(gate: &Gate, memory: &LazyMemory) {
    loop {
        let before = memory.missing_pages();
        match tokio::time::timeout(ROUND_WAIT, gate.pushed()).await {
            Err(_) if memory.missing_pages() < before => {}
            _ => return,
        }
    }
}
