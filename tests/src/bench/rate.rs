//! How much slower a program is while it is copied.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How much a program had done by some moment, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Done {
    pub(super) at_us: u64,
    pub(super) work: u64,
}

/// In units of work a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slowed {
    pub before: f64,
    pub meanwhile: f64,
}

impl Slowed {
    /// None when the program has said too little in either span to tell.
    pub(super) fn of(done: &[Done], before: Range<u64>, meanwhile: Range<u64>) -> Option<Self> {
        let before = rate(done, before).filter(|rate| *rate > 0.0)?;
        Some(Self { before, meanwhile: rate(done, meanwhile)? })
    }

    /// Below zero when it was faster.
    pub fn percent(&self) -> f64 {
        (1.0 - self.meanwhile / self.before) * 100.0
    }
}

fn rate(done: &[Done], span: Range<u64>) -> Option<f64> {
    let work = work_by(done, span.end)? - work_by(done, span.start)?;
    let seconds = float(span.end.checked_sub(span.start).filter(|us| *us > 0)?) / 1e6;
    Some(work / seconds)
}

/// Between two reports it is thought to have worked evenly.
fn work_by(done: &[Done], at_us: u64) -> Option<f64> {
    let next = done.partition_point(|one| one.at_us < at_us);
    let after = done.get(next)?;
    if after.at_us == at_us {
        return Some(float(after.work));
    }
    let before = done.get(next.checked_sub(1)?)?;
    let share = float(at_us - before.at_us) / float(after.at_us - before.at_us);
    Some(float(before.work) + share * (float(after.work) - float(before.work)))
}

#[expect(clippy::cast_precision_loss, reason = "work and microseconds, for a percentage")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 units a second for two seconds, then 250.
    fn done() -> Vec<Done> {
        let fast = (0..=20).map(|tenth| Done { at_us: tenth * 100_000, work: tenth * 100 });
        let slow = (1..=10)
            .map(|tenth| Done { at_us: 2_000_000 + tenth * 100_000, work: 2000 + tenth * 25 });
        fast.chain(slow).collect()
    }

    #[test]
    fn a_program_at_a_quarter_of_its_speed_is_slowed_by_three_quarters() {
        let slowed = Slowed::of(&done(), 550_000..1_950_000, 2_050_000..2_950_000).unwrap();
        assert!((slowed.before - 1000.0).abs() < 1e-6, "{slowed:?}");
        assert!((slowed.percent() - 75.0).abs() < 1e-6, "{slowed:?}");
    }

    #[test]
    fn what_was_not_reported_is_not_guessed() {
        assert_eq!(Slowed::of(&done(), 550_000..1_950_000, 2_050_000..3_950_000), None);
        assert_eq!(Slowed::of(&done(), 5..5, 2_050_000..2_950_000), None);
        assert_eq!(Slowed::of(&[], 0..1, 1..2), None);
    }
}
