//! `--bandwidth`: a token bucket before the bulk streams.

use crate::interrupt::Interrupt;
use std::io;
use std::time::{Duration, Instant};

/// How much of a second's worth may pass at once after a pause.
const BURST: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_s: Option<u64>,
    /// When everything that was let through would have passed at the even rate.
    paid_until: Instant,
}

impl Pace {
    pub(crate) fn new(megabit_per_s: Option<u64>) -> Self {
        let bytes_per_s = megabit_per_s.map(|megabit| megabit.saturating_mul(125_000).max(1));
        Self { bytes_per_s, paid_until: Instant::now() }
    }

    /// Waits until so many bytes may pass.
    pub(crate) fn admit(&mut self, bytes: usize, interrupt: &Interrupt) -> io::Result<()> {
        let Some(rate) = self.bytes_per_s else { return Ok(()) };
        let now = Instant::now();
        self.paid_until = self.paid_until.max(now.checked_sub(BURST).unwrap_or(now));
        let wait = self.paid_until.saturating_duration_since(now);
        self.paid_until += cost(bytes, rate);
        if wait.is_zero() { Ok(()) } else { interrupt.pause(wait) }
    }

    /// Whether something may pass without a wait.
    pub(crate) fn is_ready(&self) -> bool {
        self.bytes_per_s.is_none() || self.paid_until <= Instant::now()
    }

    /// Whether the limit is what decides, rather than a compressor on one core.
    pub(crate) fn is_below(&self, bytes_per_s: u64) -> bool {
        self.bytes_per_s.is_some_and(|rate| rate < bytes_per_s)
    }
}

fn cost(bytes: usize, bytes_per_s: u64) -> Duration {
    let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(bytes_per_s);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_stream_takes_its_time() {
        let mut pace = Pace::new(Some(80));
        let began = Instant::now();
        for _ in 0..8 {
            pace.admit(256 << 10, &Interrupt::default()).unwrap();
        }
        // 2 MiB at 10 MB/s, less one chunk that is not waited for and the burst.
        assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(None);
        pace.admit(usize::MAX, &Interrupt::default()).unwrap();
        assert!(pace.is_ready());
    }
}
