//! What a workload with a heart (`heart.h`) says of how long it stood still.

use serde::Deserialize;
use std::ops::Range;

#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// The wall clock when it was said, in microseconds since 1970.
    pub at_us: u64,
    /// By the wall clock: what downtime is to the program's users.
    pub max_gap_us: u64,
    /// The wall clock at its end, in microseconds since 1970.
    pub max_gap_ended_us: u64,
    /// By the clock that a move may shift.
    pub max_gap_monotonic_us: u64,
    pub beats: u64,
    /// What it has done besides, in units of its own.
    pub work: u64,
    /// How often all memory was verified, and the first bad word of the last time, or -1.
    pub verified: u64,
    pub bad_word: i64,
}

impl Report {
    /// How much of the largest gap lies in this span of the wall clock. What does not has another
    /// cause.
    pub fn max_gap_within(&self, span_us: Range<u64>) -> u64 {
        let began = self.max_gap_ended_us.saturating_sub(self.max_gap_us);
        let end = self.max_gap_ended_us.min(span_us.end);
        end.saturating_sub(began.max(span_us.start))
    }
}

/// None before the first report.
pub fn last_report(said: &str) -> Option<Report> {
    said.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

/// All of them, from the first.
pub fn reports(said: &str) -> Vec<Report> {
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_counts() {
        let said = format!("ready\n{}\n{}\n", line(5), line(7));
        assert_eq!(last_report(&said).unwrap().max_gap_us, 7);
        assert!(last_report("ready\n").is_none());
        assert_eq!(reports(&said).len(), 2);
    }

    #[test]
    fn a_gap_is_split_into_what_lies_in_the_freeze_and_what_does_not() {
        // From 900 to 1000.
        let report = last_report(&format!("{}\n", line(100))).unwrap();
        assert_eq!(report.max_gap_within(950..2000), 50);
        assert_eq!(report.max_gap_within(0..910), 10);
        assert_eq!(report.max_gap_within(920..960), 40);
        assert_eq!(report.max_gap_within(1000..2000), 0);
        assert_eq!(report.max_gap_within(100..200), 0);
    }

    fn line(gap: u64) -> String {
        format!(
            r#"{{"at_us":1100,"work":0,"max_gap_us":{gap},"max_gap_ended_us":1000,"max_gap_monotonic_us":2,"beats":3,"verified":0,"bad_word":-1}}"#
        )
    }
}
