//! Counting what ran: from the lines of either test runner to one line at the end.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Returned early and said why, or were not run.
    pub(crate) skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl Counts {
    /// Reads the closing line of `cargo test` (one for each test program) or of `cargo nextest`.
    pub(crate) fn in_line(line: &str) -> Option<Self> {
        // Only at the start of a line: nextest repeats, indented, what a failed test said.
        if let Some(result) = line.strip_prefix("test result: ") {
            return Some(Self::words(result, ';', "ignored"));
        }
        let (_, tests) = line.trim_start().strip_prefix("Summary [")?.split_once("run: ")?;
        // What a filter has left out is "skipped" to nextest and nothing to us.
        Some(Self::words(tests, ',', "not counted"))
    }

    fn words(text: &str, separator: char, skipped: &str) -> Self {
        let mut counts = Self::default();
        for part in text.split(separator) {
            // `ok. 12 passed`, `51 failed`, `95 passed (1 slow)`, `1 timed out`
            let mut words = part.split_whitespace().skip_while(|word| word.parse::<u64>().is_err());
            let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => counts.passed += number,
                Some("failed" | "timed" | "exec") => counts.failed += number,
                Some(word) if word == skipped => counts.skipped += number,
                _ => {}
            }
        }
        counts
    }

    /// Tests that said themselves that they did not run were counted as passed by the runner.
    pub(crate) fn with_skips(self, said: u64) -> Self {
        Self {
            passed: self.passed.saturating_sub(said),
            skipped: self.skipped + said,
            failed: self.failed,
        }
    }

    pub(crate) fn closing(&self, took: Duration) -> String {
        format!("Summary [{:>8.3}s] {self}", took.as_secs_f64())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        let run = passed + failed;
        write!(f, "{run} tests run: {passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Option<Counts> {
        Some(Counts { passed, failed, skipped })
    }

    #[test]
    fn both_runners_lines_are_read() {
        let line = "test result: FAILED. 9 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.59s";
        assert_eq!(Counts::in_line(line), counts(9, 1, 2));
        let line = "     Summary [  17.759s] 87 tests run: 36 passed, 51 failed, 4 skipped";
        assert_eq!(Counts::in_line(line), counts(36, 51, 0));
        let line =
            "     Summary [  65.661s] 95 tests run: 94 passed (1 slow), 1 timed out, 0 skipped";
        assert_eq!(Counts::in_line(line), counts(94, 1, 0));
        let repeated = "    test result: FAILED. 0 passed; 1 failed; 0 ignored; finished in 0.05s";
        assert_eq!(Counts::in_line(repeated), None);
        assert_eq!(Counts::in_line("test fifo::goes ... ok"), None);
    }

    #[test]
    fn what_said_that_it_did_not_run_is_not_passed() {
        let run = Counts { passed: 10, failed: 1, skipped: 0 }.with_skips(2);
        assert_eq!(run.to_string(), "9 tests run: 8 passed, 1 failed, 2 skipped");
        let line = run.closing(Duration::from_millis(1500));
        assert_eq!(Counts::in_line(&line), counts(8, 1, 0));
    }
}
