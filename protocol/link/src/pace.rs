//! How often something may be done: so many times at once, and after that at a steady pace.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// One more after this much time.
    pub each: Duration,
    /// At once after a quiet time.
    pub burst: u32,
}

/// A token bucket.
#[derive(Debug)]
pub struct Bucket {
    pace: Pace,
    left: u32,
    filled: Instant,
}

impl Bucket {
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self { pace, left: pace.burst, filled: now }
    }

    /// Whether it may be done once more; then one less is left.
    pub fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Moves `filled` by whole tokens only: what is too short for one counts next time.
    pub fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_micros();
        let tokens = u32::try_from(passed / self.pace.each.as_micros()).unwrap_or(u32::MAX);
        let left = self.left.saturating_add(tokens);
        self.filled = match left >= self.pace.burst {
            true => now,
            false => self.filled + self.pace.each * tokens,
        };
        self.left = left.min(self.pace.burst);
    }

    /// As of the last refill.
    pub fn left(&self) -> u32 {
        self.left
    }

    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    pub fn is_full(&self) -> bool {
        self.left == self.pace.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let begun = Instant::now();
        let pace = Pace { each: Duration::from_millis(1000), burst: 10 };
        let mut bucket = Bucket::new(pace, begun);
        let at = |ms| begun + Duration::from_millis(ms);
        assert_eq!((0..10_000).filter(|ms| bucket.take(at(*ms))).count(), 10 + 9);
        assert!(bucket.is_empty());
        bucket.refill(at(60_000));
        assert!(bucket.is_full() && bucket.left() == 10);
    }
}
