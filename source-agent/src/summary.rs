//! The account of a move: filled while it goes on, and told at its end.

use crate::events::{RunsOn, Summary};
use protocol::message::{Complete, Decided, Ready};
use protocol::pages::Tally;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub(crate) struct Account {
    began: Instant,
    rounds: u32,
    copied: Tally,
    steps: Vec<(String, Duration)>,
    frozen_at: Option<(Instant, SystemTime)>,
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

    /// That have ended.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }

    pub(crate) fn freeze_begins(&mut self, began: Instant, at: SystemTime) {
        self.frozen_at = Some((began, at));
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
        let there =
            |(name, ns): (&String, &u64)| (format!("{THERE}{name}"), Duration::from_nanos(*ns));
        self.steps.extend(ready.timings_ns.iter().map(there));
    }

    pub(crate) fn handed_over(&mut self) {
        self.handed_over_at = Some(Instant::now());
    }

    /// The decision came. When exactly the tree ran there, only the destination can say; between
    /// us is half a round trip.
    pub(crate) fn decided(&mut self, decided: &Decided, rtt: Duration) {
        let (Some((frozen, _)), Some(handed_over)) = (self.frozen_at, self.handed_over_at) else {
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
        let downtime = handed_over.duration_since(frozen) + until_it_ran;
        self.steps.push((BETWEEN.to_owned(), downtime.saturating_sub(self.accounted_for())));
        self.downtime = Some(downtime);
    }

    /// By the steps here: what the destination says of its own is a part of one of them.
    fn accounted_for(&self) -> Duration {
        let here = self.steps.iter().filter(|(name, _)| !name.starts_with(THERE));
        here.map(|(_, took)| *took).sum()
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
            freeze_ms: self.freeze_ms(),
            frozen_at_us: self.frozen_at.and_then(|(_, at)| unix_us(at)),
            downtime_ms: self.downtime.map(ms),
            lazy_faults: self.complete.faults,
            lazy_fault_pages: self.complete.fault_pages,
            lazy_pushed_pages: self.complete.pushed_pages,
            total_ms: ms(self.began.elapsed()),
            runs_on,
        }
    }

    /// A step that was made twice took as long as both.
    fn freeze_ms(&self) -> BTreeMap<String, f64> {
        let mut steps: BTreeMap<String, Duration> = BTreeMap::new();
        for (name, took) in &self.steps {
            *steps.entry(name.clone()).or_default() += *took;
        }
        steps.into_iter().map(|(name, took)| (name, ms(took))).collect()
    }

    /// The closing words.
    pub(crate) fn text(&self) -> String {
        let mut lines = Vec::new();
        if let Some(downtime) = self.downtime {
            lines.push(format!("It stood still for {:.1} ms:", ms(downtime)));
            lines.extend(self.steps.iter().map(|(name, took)| step(name, *took)));
        }
        let Summary { rounds, pages, zero_pages, dropped_pages, .. } =
            self.summary(RunsOn::Destination);
        lines.push(format!(
            "{} while it ran; {} sent, {zero_pages} of zeros and {dropped_pages} dropped; \
             {:.1} MiB on the wire in all.",
            counted(rounds.into(), "round"),
            counted(pages, "page"),
            mebibytes(self.copied.bytes_wire)
        ));
        let Complete { faults, fault_pages, pushed_pages } = self.complete;
        if fault_pages + pushed_pages > 0 {
            lines.push(format!(
                "Afterwards {} came by {}, and {} by being pushed.",
                counted(fault_pages, "page"),
                counted(faults, "fault"),
                counted(pushed_pages, "page")
            ));
        }
        let seconds = self.began.elapsed().as_secs_f64();
        lines.push(format!("{seconds:.1} s from beginning to end."));
        lines.join("\n")
    }
}

fn unix_us(at: SystemTime) -> Option<u64> {
    at.duration_since(UNIX_EPOCH).ok()?.as_micros().try_into().ok()
}

/// What the destination says of its own steps is a part of a step here, and stands below it.
fn step(name: &str, took: Duration) -> String {
    match name.strip_prefix(THERE) {
        Some(name) => format!("  {:>11.2} ms   of that, on the destination: {name}", ms(took)),
        None => format!("  {:>7.2} ms  {name}", ms(took)),
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

const THERE: &str = "destination: ";
/// From one step to the next: the threads of this agent wake each other, and a message goes out.
const BETWEEN: &str = "between the steps";

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
        account.freeze_begins(Instant::now(), SystemTime::now());
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

    #[test]
    fn every_figure_of_the_freeze_has_its_name_and_its_unit() {
        let mut account = handed_over();
        account.round();
        account.step("stop".into(), Duration::from_micros(1250));
        account.captured();
        let timings_ns = [("sockets".to_owned(), 400_000)].into();
        account.ready(&Ready { timings_ns });
        account.decided(&decided(0), Duration::ZERO);
        let text = account.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("It stood still for ") && lines[0].ends_with(" ms:"),
            "{text}"
        );
        assert_eq!(lines[1], "     1.25 ms  stop");
        assert!(lines[2].ends_with(" ms  build and wire"), "{text}");
        assert_eq!(lines[3], "         0.40 ms   of that, on the destination: sockets");
        assert!(lines[4].ends_with(" ms  handover"), "{text}");
        assert!(lines[5].ends_with(" ms  between the steps"), "{text}");
        assert!(lines[6].starts_with("1 round while it ran; 0 pages sent"), "{text}");
    }

    #[test]
    fn the_steps_add_up_to_the_downtime() {
        let mut account = handed_over();
        account.step("stop".into(), Duration::from_micros(1250));
        account.step("stop".into(), Duration::from_micros(1000));
        account.captured();
        account.ready(&Ready { timings_ns: [("sockets".to_owned(), 400_000_000)].into() });
        account.decided(&decided(1_000_000), Duration::from_millis(2));
        let Summary { freeze_ms, downtime_ms, .. } = account.summary(RunsOn::Destination);
        assert!(freeze_ms[BETWEEN] > 1.0, "five milliseconds, and 2.25 of them are named");
        let here = freeze_ms.iter().filter(|(name, _)| !name.starts_with(THERE));
        let sum: f64 = here.map(|(_, ms)| ms).sum();
        assert!((sum - downtime_ms.unwrap()).abs() < 0.01, "{freeze_ms:?} {downtime_ms:?}");
    }
}
