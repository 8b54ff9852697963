//! The log's lines about those who were not let in. Anybody who reaches the port can cause one, so
//! they are limited: what floods the log hides in it, and fills a disk.

use crate::report;
use link::{Bucket, LinkError, Pace};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One line in this time over the long run; after a quiet time single visits are told one by one.
const PACE: Pace = Pace { each: Duration::from_secs(1), burst: 10 };

/// What was said, and how often nothing was.
#[derive(Debug)]
pub struct Strangers(Mutex<Said>);

#[derive(Debug)]
struct Said {
    lines: Bucket,
    untold: u64,
}

impl Default for Strangers {
    fn default() -> Self {
        Self(Mutex::new(Said::new(Instant::now())))
    }
}

impl Strangers {
    /// Says why somebody was not let in, if not too much was said just now.
    pub fn tell(&self, why: &LinkError) {
        let told = self.said().count(Instant::now());
        let Some(untold) = told else { return };
        if untold > 0 {
            tracing::warn!("{untold} more were not let in, which is not told one by one");
        }
        match why {
            LinkError::TurnedDown { .. } => tracing::info!("{}", report::chain(why)),
            LinkError::Undecided { .. } => tracing::error!("{}", report::chain(why)),
            _ => tracing::warn!("{}", report::chain(why)),
        }
    }

    /// Those of whom nothing was said and after whom nobody came.
    pub fn tell_of_the_last(&self) {
        let untold = self.said().last(Instant::now());
        if untold > 0 {
            tracing::warn!("{untold} more were not let in, which is not told one by one");
        }
    }

    pub async fn tell_of_the_last_for_ever(&self) {
        loop {
            tokio::time::sleep(PACE.each * PACE.burst).await;
            self.tell_of_the_last();
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn new(now: Instant) -> Self {
        Self { lines: Bucket::new(PACE, now), untold: 0 }
    }

    /// `Some` if one more may be told of, with how many were not since the last one.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self.lines.take(now) {
            return Some(std::mem::take(&mut self.untold));
        }
        self.untold += 1;
        None
    }

    fn last(&mut self, now: Instant) -> u64 {
        self.lines.refill(now);
        if self.lines.is_empty() { 0 } else { std::mem::take(&mut self.untold) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_a_second_and_all_of_it_is_counted() {
        let begun = Instant::now();
        let mut said = Said::new(begun);
        let at = |ms| begun + Duration::from_millis(ms);
        let told: Vec<u64> = (0..10_000).filter_map(|ms| said.count(at(ms))).collect();
        assert_eq!(told.len(), PACE.burst as usize + 9);
        let whole = u64::try_from(told.len()).unwrap() + told.iter().sum::<u64>() + said.untold;
        assert_eq!(whole, 10_000);
        assert_eq!(said.count(at(20_000)), Some(999), "since the last one that was told");
        assert_eq!(said.count(at(20_000)), Some(0));
    }
}
