//! The carriers, each between hosts of its own.

use super::super::cost;
use super::super::floor::listening;
use super::road::Road;
use super::row::{Carried, Compress, Memory, costs};
use crate::hosts::{CONFIG, TwoHosts};
use crate::moved::Moved;
use crate::workload::Workload;
use crate::{place, wait};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

const PAGE_BYTES: u64 = 4096;
/// Of a second at 100 Mbit/s and a loaded machine.
const LIMIT: Duration = Duration::from_secs(300);

pub(super) fn tcp(road: Road, mib: u32) -> Result<Carried> {
    let hosts = TwoHosts::new()?;
    let address = format!("{}:7801", hosts.b.address().v4);
    flood(&hosts, road, mib, ["sink", &address], &["flood", &address])
}

pub(super) fn link(road: Road, mib: u32) -> Result<Carried> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    let address = format!("{}:7802", hosts.b.address().v4);
    let sink = ["link-sink", &address, CONFIG];
    flood(&hosts, road, mib, sink, &["link-flood", hosts.b.name(), &address, CONFIG])
}

/// Has a client on `a` send so much to a server on `b`; it says how many seconds that took.
fn flood<const N: usize>(
    hosts: &TwoHosts,
    road: Road,
    mib: u32,
    server: [&str; N],
    client: &[&str],
) -> Result<Carried> {
    road.lay(hosts)?;
    let [source, destination] =
        ["source", "destination"].map(|name| cost::file(hosts.shared(), name));
    let (program, amount) = (place::program("bench-host")?, mib.to_string());
    let half = |which| [program.as_str(), "half", which, "--", program.as_str()];
    let measured = cost::measuring(&destination)?;
    let measured = measured.each_ref().map(String::as_str);
    let server = [&measured[..], &half("lower"), &server[..]].concat();
    let server = listening(&hosts.b, &server)?;
    let measured = cost::measuring(&source)?;
    let measured = measured.each_ref().map(String::as_str);
    let client = [&measured[..], &half("upper"), client, &[amount.as_str()]].concat();
    let said = hosts.a.run_within(LIMIT, &client, &[])?.success()?;
    hosts.b.finish(&server, wait::PATIENCE)?.success()?;
    let seconds: f64 = said.trim().parse().with_context(|| format!("it says {said:?}"))?;
    let [source, destination] = costs([&source, &destination])?;
    let bytes = u64::from(mib) << 20;
    Ok(Carried { memory_bytes: bytes, wire_bytes: bytes, ms: seconds * 1e3, source, destination })
}

/// Counts only when all of the memory was found as it was.
pub(super) fn pre_copy(
    road: Road,
    mib: u32,
    memory: Memory,
    compress: Compress,
) -> Result<Carried> {
    let hosts = TwoHosts::with_agents()?;
    road.lay(&hosts)?;
    let program = Workload::start(&hosts.a, "memory", &[&mib.to_string(), memory.argument()])?;
    let agent = [*hosts.agent_pids().get(1).context("the agent of the destination")?];
    take_memory(mib);
    let before = cost::of_running(&hosts.b, &agent)?;
    let file = cost::file(hosts.shared(), "migrate");
    let measuring = cost::measuring(&file)?;
    let within = measuring.each_ref().map(String::as_str);
    let options = ["--compress", compress.argument()];
    let command = hosts.start_migrate_within(&within, program.pid, &hosts.a, "hostb", &options)?;
    let moved = hosts.finish_migrate(&hosts.a, &command)?.success()?;
    let source = cost::read(&file)?.cost;
    let mut destination = cost::of_running(&hosts.b, &agent)?;
    destination.cpu_ms -= before.cpu_ms;
    is_whole(&hosts, &program)?;
    let (memory_bytes, wire_bytes, ms) = first_round(&moved)?;
    ensure!(memory_bytes >= u64::from(mib) << 20, "a first round of {memory_bytes} bytes");
    Ok(Carried { memory_bytes, wire_bytes, ms, source, destination })
}

/// Has so much memory, and gives it back. Where this machine is a virtual one, its host has taken what was free
/// for long, and to have it again takes as long as to copy into it: a matter of the machine and not of the move.
pub(super) fn take_memory(mib: u32) {
    let room: Vec<u8> = vec![1; usize::try_from(mib).unwrap_or(0) << 20];
    std::hint::black_box(&room);
}

/// Bytes of memory, bytes on the wire, and milliseconds.
fn first_round(moved: &Moved) -> Result<(u64, u64, f64)> {
    let round: &Value = moved.named("round").next().context("a round")?;
    let whole = |name: &str| round[name].as_u64().with_context(|| format!("{name} of a round"));
    let ms = round["duration_ms"].as_f64().context("duration_ms of a round")?;
    Ok((whole("pages")? * PAGE_BYTES, whole("bytes")?, ms))
}

/// Looks at every word, on the destination.
pub(super) fn is_whole(hosts: &TwoHosts, program: &Workload) -> Result<()> {
    hosts.b.signal(program.pid, Signal::SIGUSR2)?;
    let said = || {
        let said = program.said()?;
        let values = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(values.filter_map(|value| value["bad_word"].as_i64()).next_back())
    };
    let bad = wait::until(LIMIT, || "a verification".into(), said)?;
    ensure!(bad == -1, "it came without all it had: word {bad} is wrong");
    Ok(())
}
