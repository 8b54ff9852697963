//! How long programs waited for their pages, in constant memory.

use std::time::Duration;

/// Buckets per power of two: a quantile is off by an eighth at most.
const STEPS: usize = 8;
const BUCKETS: usize = 64 * STEPS;

#[derive(Clone)]
pub struct Latencies {
    /// How many waits were as long as the bucket's bound in microseconds, or a little shorter.
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), count: 0, max: Duration::ZERO }
    }
}

impl Latencies {
    pub(super) fn add(&mut self, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(waited);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> Duration {
        self.max
    }

    /// The wait that this share of all waits (of 1000) did not exceed: `permille(500)` is the
    /// median. Rounded up by at most an eighth; zero when nobody waited.
    pub fn permille(&self, share: u64) -> Duration {
        let wanted = (self.count * share).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(bound(index)).min(self.max);
            }
        }
        Duration::ZERO
    }
}

/// Below 16 every microsecond has its own bucket; then eight for each power of two.
fn bucket(micros: u64) -> usize {
    let power = micros.max(1).ilog2() as usize;
    if power < 3 {
        return usize::try_from(micros).unwrap_or(0);
    }
    let step = usize::try_from(micros >> (power - 3)).unwrap_or(0) - STEPS;
    (power - 2) * STEPS + step
}

/// The longest wait of a bucket.
fn bound(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let (power, step) = (index / STEPS + 2, index % STEPS);
    (((STEPS + step + 1) as u64) << (power - 3)) - 1
}

impl std::fmt::Debug for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latencies")
            .field("count", &self.count)
            .field("p50", &self.permille(500))
            .field("p99", &self.permille(990))
            .field("max", &self.max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_off_by_an_eighth_at_most() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|n| latencies.add(Duration::from_micros(n * 37)));
        for share in [1, 10, 500, 990, 1000] {
            let true_one = share * 37;
            let told = u64::try_from(latencies.permille(share).as_micros()).expect("small");
            assert!(told >= true_one && told <= true_one + true_one / 8, "{share}: {told}");
        }
        assert_eq!(latencies.max(), Duration::from_millis(37));
    }

    #[test]
    fn every_wait_falls_below_the_bound_of_its_bucket() {
        for micros in (0..100_000).chain([1 << 40, u64::MAX >> 8]) {
            let index = bucket(micros);
            assert!(bound(index) >= micros, "{micros}");
            assert!(index == 0 || bound(index - 1) < micros, "{micros}");
        }
    }

    #[test]
    fn nobody_waited_is_zero() {
        assert_eq!(Latencies::default().permille(500), Duration::ZERO);
    }
}
