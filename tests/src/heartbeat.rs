//! What the `heartbeat` workload says of how long it stood still.

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// By the wall clock: what downtime is to the program's users.
    pub max_gap_us: u64,
    /// By the clock that a move may shift.
    pub max_gap_monotonic_us: u64,
    pub beats: u64,
    /// How often all memory was verified, and the first bad word of the last time, or -1.
    pub verified: u64,
    pub bad_word: i64,
}

/// None before the first report.
pub fn last_report(said: &str) -> Option<Report> {
    said.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_counts() {
        let line = |gap| {
            format!(
                r#"{{"max_gap_us":{gap},"max_gap_monotonic_us":2,"beats":3,"verified":0,"bad_word":-1}}"#
            )
        };
        let said = format!("ready\n{}\n{}\n", line(5), line(7));
        assert_eq!(last_report(&said).unwrap().max_gap_us, 7);
        assert!(last_report("ready\n").is_none());
    }
}
