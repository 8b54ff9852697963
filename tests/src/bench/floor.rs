//! What the link and the memory would allow, if nothing had to be done but to carry bytes.

use super::spread::Spread;
use crate::hosts::{Host, Started, TwoHosts};
use crate::{place, wait, workload};
use anyhow::{Context, Result, bail};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{BufRead, BufReader, IoSliceMut};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Floor {
    /// One connection, one direction.
    pub tcp_mib_s: Spread,
    /// One byte and its answer.
    pub round_trip_us: Spread,
    /// process_vm_readv(2), a MiB at a time.
    pub read_mib_s: Spread,
}

const FLOOD_MIB: u32 = 1024;
const PINGS: usize = 1000;
const READ_MIB: u32 = 256;

impl Floor {
    /// So many times.
    pub(super) fn measure(runs: u32) -> Result<Self> {
        let hosts = TwoHosts::new()?;
        let several = |once: &dyn Fn() -> Result<f64>| {
            let values = (0..runs).map(|_| once()).collect::<Result<Vec<f64>>>()?;
            Spread::of(values).context("no run was asked for")
        };
        Ok(Self {
            tcp_mib_s: several(&|| {
                let seconds = ask(&hosts, "sink", "flood", &FLOOD_MIB.to_string())?;
                Ok(f64::from(FLOOD_MIB) / seconds)
            })?,
            round_trip_us: several(&|| round_trip_us(&hosts))?,
            read_mib_s: several(&|| {
                Ok(f64::from(READ_MIB) / read_another_process()?.as_secs_f64())
            })?,
        })
    }
}

/// The median of many.
pub(super) fn round_trip_us(hosts: &TwoHosts) -> Result<f64> {
    Ok(ask(hosts, "echo", "ping", &PINGS.to_string())? * 1e6)
}

/// Has a client on `a` speak to a server on `b`; the client says a number of seconds.
fn ask(hosts: &TwoHosts, server: &str, client: &str, how_much: &str) -> Result<f64> {
    let (program, address) =
        (place::program("bench-host")?, format!("{}:7801", hosts.b.address().v4));
    let server = listening(&hosts.b, &[&program, server, &address])?;
    let said = hosts.a.run(&[&program, client, &address, how_much])?.success()?;
    hosts.b.finish(&server, wait::PATIENCE)?.success()?;
    said.trim().parse().with_context(|| format!("{client} says {said:?}"))
}

pub(super) fn listening(host: &Host, argv: &[&str]) -> Result<Started> {
    let server = host.spawn(argv)?;
    let said = || Ok(fs::read_to_string(&server.stdout)?.contains("listening").then_some(()));
    wait::until(wait::PATIENCE, || format!("{argv:?}: {}", server.story()), said)?;
    Ok(server)
}

/// Ended when it is dropped.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All of its memory, once.
fn read_another_process() -> Result<Duration> {
    let mut other = Other(
        Command::new(workload::executable("heartbeat")?)
            .arg(READ_MIB.to_string())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut said = BufReader::new(other.0.stdout.take().context("what it says")?);
    said.read_line(&mut String::new())?;
    let pid = i32::try_from(other.0.id())?;
    let start = largest_mapping(&fs::read_to_string(format!("/proc/{pid}/maps"))?)?;
    let mut chunk = vec![1; 1 << 20];
    let began = Instant::now();
    for number in 0..usize::try_from(READ_MIB)? {
        let from = [RemoteIoVec { base: start + number * chunk.len(), len: chunk.len() }];
        let mut into = [IoSliceMut::new(&mut chunk)];
        let read = process_vm_readv(Pid::from_raw(pid), &mut into, &from);
        let read = read.context("read another process")?;
        if read != 1 << 20 {
            bail!("{read} bytes of a MiB were read");
        }
    }
    Ok(began.elapsed())
}

fn largest_mapping(maps: &str) -> Result<usize> {
    let range = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).ok());
        Some((start?, end?))
    };
    let ranges = maps.lines().filter_map(range);
    ranges.max_by_key(|(start, end)| end - start).map(|(start, _)| start).context("a mapping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mapping_is_found() {
        let maps =
            "1000-2000 r--p 0 00:00 0 /a\n5000-9000 rw-p 0 00:00 0\na000-b000 rw-p 0 00:00 0\n";
        assert_eq!(largest_mapping(maps).unwrap(), 0x5000);
        assert!(largest_mapping("").is_err());
    }
}
