//! What a command has cost, as the kernel counts it at its end: getrusage(2).

use crate::hosts::Host;
use crate::place;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Of one side of a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub cpu_ms: f64,
    /// The most that was ever resident.
    pub peak_kib: u64,
}

/// Of a command that has ended, with when it began and ended: microseconds since 1970.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) began_us: u64,
    pub(super) ended_us: u64,
    pub(super) cost: Cost,
}

impl Measured {
    pub(super) fn ms(&self) -> f64 {
        between_ms(self.began_us, self.ended_us)
    }
}

/// What to put before a command, so that its cost goes into a file: `bench-host measure FILE --`.
pub(super) fn measuring(file: &Path) -> Result<[String; 4]> {
    let words = [place::program("bench-host")?, "measure".into(), place::text(file)?, "--".into()];
    Ok(words)
}

pub(super) fn read(file: &Path) -> Result<Measured> {
    let said = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&said).with_context(|| format!("understand {}", file.display()))
}

/// Runs a command to its end, writes what it has cost into a file, and returns its exit status.
pub fn measure(file: &Path, argv: &[String]) -> Result<i32> {
    let [program, arguments @ ..] = argv else { bail!("nothing to measure") };
    let began_us = now_us();
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("start {program}"))?;
    let ended_us = now_us();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask what it has cost")?;
    let measured = Measured { began_us, ended_us, cost: cost(&usage)? };
    fs::write(file, serde_json::to_vec(&measured)?)?;
    if let Some(signal) = status.signal() {
        bail!("{program} was killed by signal {signal}");
    }
    status.code().context("an exit status")
}

fn cost(usage: &Usage) -> Result<Cost> {
    let us = [usage.user_time(), usage.system_time()];
    let us: i64 = us.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).iter().sum();
    let cpu_ms = ms(u64::try_from(us)?);
    Ok(Cost { cpu_ms, peak_kib: u64::try_from(usage.max_rss())? })
}

/// Of processes that go on, by what the kernel has counted until now, with their children that have ended.
pub(super) fn of_running(host: &Host, pids: &[i32]) -> Result<Cost> {
    let costs = pids.iter().map(|pid| {
        let read = |name: &str| host.read(&format!("/proc/{pid}/{name}"));
        Ok(Cost { cpu_ms: cpu_ms(&read("stat")?)?, peak_kib: peak_kib(&read("status")?)? })
    });
    let costs = costs.collect::<Result<Vec<Cost>>>()?;
    let cpu_ms = costs.iter().map(|cost| cost.cpu_ms).sum();
    Ok(Cost { cpu_ms, peak_kib: costs.iter().map(|cost| cost.peak_kib).max().unwrap_or(0) })
}

/// utime, stime, cutime and cstime of proc_pid_stat(5), in ticks of 10 ms.
fn cpu_ms(stat: &str) -> Result<f64> {
    let (_, fields) = stat.rsplit_once(") ").context("the fields of a stat")?;
    let ticks = fields.split(' ').skip(11).take(4).map(str::parse::<u32>);
    let ticks = ticks.collect::<Result<Vec<u32>, _>>()?;
    ensure!(ticks.len() == 4, "a stat like {stat:?}");
    Ok(f64::from(ticks.iter().sum::<u32>()) * 10.0)
}

fn peak_kib(status: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let line = line.context("the peak of a process that has memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

pub(super) fn now_us() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}

/// 0 when the second comes before the first.
pub(super) fn between_ms(from_us: u64, to_us: u64) -> f64 {
    ms(to_us.saturating_sub(from_us))
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run")]
fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a run")]
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Where a command of a run leaves what it has cost.
pub(super) fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.cost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 1 0 99 1 2";
        assert!((cpu_ms(stat).unwrap() - 2100.0).abs() < 1e-9);
        assert!(cpu_ms("7 (a) S 1").is_err());
    }

    #[test]
    fn the_peak_is_the_high_water_mark() {
        assert_eq!(peak_kib("Name:\ta\nVmHWM:\t    1234 kB\nVmRSS:\t 5 kB\n").unwrap(), 1234);
        assert!(peak_kib("Name:\ta\n").is_err());
    }

    #[test]
    fn a_command_that_computes_costs_time_and_memory() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path(), "sum");
        let sum = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 3";
        let exit = measure(&file, &["sh", "-c", sum].map(str::to_owned)).unwrap();
        let measured = read(&file).unwrap();
        assert_eq!(exit, 3);
        assert!(measured.cost.cpu_ms > 1.0 && measured.cost.peak_kib > 100, "{measured:?}");
        assert!(measured.ms() >= 1.0, "{measured:?}");
    }
}
