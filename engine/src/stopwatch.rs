//! How long the steps of something took.

use std::time::{Duration, Instant};

/// How long each step took.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    since: Instant,
    pub(crate) laps: Vec<(&'static str, Duration)>,
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self { since: Instant::now(), laps: Vec::new() }
    }
}

impl Stopwatch {
    pub(crate) fn lap(&mut self, step: &'static str) {
        self.laps.push((step, self.since.elapsed()));
        self.since = Instant::now();
    }
}
