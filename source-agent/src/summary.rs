//! The account of a move: filled while it goes on, and told at its end.

use crate::events::{RunsOn, Summary};
use protocol::message::{Complete, Decided, Ready};
use protocol::pages::Tally;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Account {
    began: Instant,
    rounds: u32,
    copied: Tally,
    steps: Vec<(String, Duration)>,
    frozen_at: Option<Instant>,
    captured_at: Option<Instant>,
    handed_over_at: Option<Instant>,
    downtime: Option<Duration>,
    complete: Complete,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            rounds: 0,
            copied: Tally::default(),
            steps: Vec::new(),
            frozen_at: None,
            captured_at: None,
            handed_over_at: None,
            downtime: None,
            complete: Complete::default(),
        }
    }

    pub(crate) fn copied(&mut self, tally: Tally) {
        self.copied += tally;
    }

    /// Tells the number of the round that has ended.
    pub(crate) fn round(&mut self) -> u32 {
        self.rounds += 1;
        self.rounds
    }

    pub(crate) fn freeze_begins(&mut self) {
        self.frozen_at = Some(Instant::now());
    }

    pub(crate) fn step(&mut self, name: String, took: Duration) {
        self.steps.push((name, took));
    }

    pub(crate) fn captured(&mut self) {
        self.captured_at = Some(Instant::now());
    }

    pub(crate) fn ready(&mut self, ready: &Ready) {
        let built = self.captured_at.map(|at| at.elapsed());
        self.steps.extend(built.map(|took| ("build and wire".to_owned(), took)));
        let there = |(name, ns): (&String, &u64)| {
            (format!("destination: {name}"), Duration::from_nanos(*ns))
        };
        self.steps.extend(ready.timings_ns.iter().map(there));
    }

    pub(crate) fn handed_over(&mut self) {
        self.handed_over_at = Some(Instant::now());
    }

    /// The decision came. When exactly the tree ran there, only the destination can say; between
    /// us is half a round trip.
    pub(crate) fn decided(&mut self, decided: &Decided, rtt: Duration) {
        let (Some(frozen), Some(handed_over)) = (self.frozen_at, self.handed_over_at) else {
            return;
        };
        if self.downtime.is_some() {
            return;
        }
        let one_way = rtt / 2;
        let heard = handed_over.elapsed().saturating_sub(one_way);
        let told = one_way + Duration::from_nanos(decided.resumed_after_ns);
        let until_it_ran = if decided.resumed_after_ns == 0 { heard } else { told.min(heard) };
        self.steps.push(("handover".to_owned(), until_it_ran));
        self.downtime = Some(handed_over.duration_since(frozen) + until_it_ran);
    }

    pub(crate) fn complete(&mut self, complete: Complete) {
        self.complete = complete;
    }

    pub(crate) fn summary(&self, runs_on: RunsOn) -> Summary {
        Summary {
            rounds: self.rounds,
            pages: self.copied.pages,
            zero_pages: self.copied.zero_pages,
            dropped_pages: self.copied.dropped_pages,
            bytes_wire: self.copied.bytes_wire,
            freeze_ms: self.steps.iter().map(|(name, took)| (name.clone(), ms(*took))).collect(),
            downtime_ms: self.downtime.map(ms),
            lazy_faults: self.complete.faults,
            lazy_fault_pages: self.complete.fault_pages,
            lazy_pushed_pages: self.complete.pushed_pages,
            total_ms: ms(self.began.elapsed()),
            runs_on,
        }
    }

    /// The closing words.
    pub(crate) fn text(&self) -> String {
        let Summary { rounds, pages, zero_pages, dropped_pages, .. } =
            self.summary(RunsOn::Destination);
        let mut text = String::new();
        if let Some(downtime) = self.downtime {
            text += &format!("It stood still for {:.1} ms:", ms(downtime));
            let steps = self.steps.iter();
            steps.for_each(|(name, took)| text += &format!(" {name} {:.1},", ms(*took)));
            text.pop();
            text += ".\n";
        }
        text += &format!(
            "{rounds} rounds while it ran; {pages} pages, {zero_pages} zero and {dropped_pages} dropped, \
             {:.1} MiB on the wire in all.\n",
            mebibytes(self.copied.bytes_wire)
        );
        let Complete { faults, fault_pages, pushed_pages } = self.complete;
        if fault_pages + pushed_pages > 0 {
            text += &format!(
                "Afterwards {fault_pages} pages came by {faults} faults, and {pushed_pages} were pushed.\n"
            );
        }
        text + &format!("{:.1} s from beginning to end.", self.began.elapsed().as_secs_f64())
    }
}

/// Milliseconds to the microsecond.
pub(crate) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "for the eye only")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{MigrationId, Outcome};

    fn decided(resumed_after_ns: u64) -> Decided {
        let migration = MigrationId { high: 0, low: 1 };
        Decided { migration, outcome: Outcome::Running.into(), resumed_after_ns }
    }

    fn handed_over() -> Account {
        let mut account = Account::new();
        account.freeze_begins();
        std::thread::sleep(Duration::from_millis(5));
        account.handed_over();
        std::thread::sleep(Duration::from_millis(20));
        account
    }

    #[test]
    fn the_destination_knows_best_when_it_ran() {
        let mut account = handed_over();
        account.decided(&decided(1_000_000), Duration::from_millis(2));
        let downtime = account.summary(RunsOn::Destination).downtime_ms.unwrap();
        assert!((7.0..25.0).contains(&downtime), "{downtime}");
    }

    #[test]
    fn without_its_word_the_answer_is_what_counts() {
        let mut account = handed_over();
        account.decided(&decided(0), Duration::from_millis(2));
        assert!(account.summary(RunsOn::Destination).downtime_ms.unwrap() >= 24.0);
    }

    #[test]
    fn a_downtime_that_was_not_measured_is_not_reported() {
        let mut account = Account::new();
        account.decided(&decided(5), Duration::ZERO);
        assert_eq!(account.summary(RunsOn::Source).downtime_ms, None);
        assert!(!account.text().contains("stood still"));
    }
}
