//! What passes a host's link, over time: the kernel's own counters, whoever sends.

use crate::hosts::Host;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many bytes have passed since the beginning, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub at_ms: f64,
    pub bytes: u64,
}

const INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Sample>>>,
}

impl Watch {
    /// Of `eth0`, from now.
    pub(super) fn begin(host: &Host) -> Result<Self> {
        let path = format!("/proc/{}/net/dev", host.init_pid());
        let began = passed(&fs::read_to_string(&path)?)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (seen, start) = (Arc::clone(&is_over), Instant::now());
        let thread = std::thread::spawn(move || {
            let mut samples = vec![Sample { at_ms: 0.0, bytes: 0 }];
            loop {
                // First the question and then the look, so that the last one is of after the end.
                let is_last = seen.load(Ordering::Relaxed);
                let bytes = passed(&fs::read_to_string(&path)?)?.saturating_sub(began);
                samples.push(Sample { at_ms: start.elapsed().as_secs_f64() * 1e3, bytes });
                if is_last {
                    return Ok(samples);
                }
                std::thread::sleep(INTERVAL);
            }
        });
        Ok(Self { is_over, thread })
    }

    pub(super) fn end(self) -> Result<Vec<Sample>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| bail!("who watched the link panicked"))
    }
}

/// Received and sent, by /proc/net/dev.
fn passed(devices: &str) -> Result<u64> {
    let own = devices.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"));
    let counters: Vec<&str> = own.context("eth0 among the devices")?.split_whitespace().collect();
    // The first of receiving and the first of sending.
    let [received, sent] =
        [counters.first(), counters.get(8)].map(|one| one.context("a counter of eth0"));
    Ok(received?.parse::<u64>()? + sent?.parse::<u64>()?)
}

/// Between each sample and the next, in MiB a second.
pub(super) fn throughput(samples: &[Sample]) -> Vec<(f64, f64)> {
    let pairs = samples.iter().zip(samples.iter().skip(1));
    let pairs = pairs.filter(|(one, next)| next.at_ms > one.at_ms);
    let rate = |(one, next): (&Sample, &Sample)| {
        let mib = super::cost::mib(next.bytes - one.bytes);
        (next.at_ms, mib / (next.at_ms - one.at_ms) * 1e3)
    };
    pairs.map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_count_and_other_devices_do_not() {
        let devices = "Inter-|   Receive\n face |bytes\n    lo: 9 9 9 9 9 9 9 9 9 9\n  \
                       eth0: 100 1 0 0 0 0 0 0 23 1 0 0 0 0 0 0\n";
        assert_eq!(passed(devices).unwrap(), 123);
        assert!(passed("    lo: 9 9\n").is_err());
        assert!(passed("  eth0: 9 9\n").is_err());
    }

    #[test]
    fn throughput_is_between_samples() {
        let sample = |at_ms, mib: u64| Sample { at_ms, bytes: mib << 20 };
        let samples = [sample(0.0, 0), sample(500.0, 10), sample(500.0, 10), sample(1000.0, 10)];
        assert_eq!(throughput(&samples), [(500.0, 20.0), (1000.0, 0.0)]);
        assert_eq!(throughput(&[]), []);
    }
}
