//! What the driver of a session remembers between two steps, and how often it calls a destination
//! that does not answer.

use protocol::source::Input;
use protocol::{Failure, Outcome};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two calls to a destination that does not answer, beyond the machine's own patience: the
/// first pause, which doubles, and the longest.
const BACK_OFF: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(15);
/// A line that was lost sooner was no line.
const LINE_LIFE_MIN: Duration = Duration::from_secs(1);
/// What the driver has to remember between two steps.
#[derive(Debug)]
pub(crate) struct Course {
    /// What came up while something was being done.
    pub(super) pending: VecDeque<Input>,
    pub(super) lines_made: u32,
    /// In the state that it is in: since when, and how often the operator wanted it to stop.
    pub(super) since: Instant,
    pub(super) stops: u32,
    pub(super) lost: Option<Failure>,
    /// What the operator has said in the destination's place, when it was needed.
    pub(super) answered: Option<Outcome>,
    /// Of a connection for faults that nobody needed yet.
    pub(super) faults_lost: Option<String>,
    /// One after the other.
    pub(super) calls_in_vain: u32,
    /// When the line that there is was made, if it is not the first.
    pub(super) remade_at: Option<Instant>,
}

impl Course {
    pub(crate) fn new(lines_made: u32) -> Self {
        let (pending, since) = (VecDeque::new(), Instant::now());
        let (lost, faults_lost, answered) = (None, None, None);
        let (stops, calls_in_vain, remade_at) = (0, 0, None);
        Self {
            pending,
            lines_made,
            since,
            stops,
            lost,
            answered,
            faults_lost,
            calls_in_vain,
            remade_at,
        }
    }

    /// A destination that takes a call and then drops it, for as long as it has not noticed that
    /// the link before is dead, is not called again and again. Counts as a call in vain.
    pub(super) fn was_lost_at_once(&mut self) -> bool {
        let Some(remade_at) = self.remade_at.take() else { return false };
        let at_once = remade_at.elapsed() < LINE_LIFE_MIN;
        self.calls_in_vain = if at_once { self.calls_in_vain + 1 } else { 0 };
        at_once
    }

    pub(super) fn back_off(&self) -> Duration {
        let Some(doublings) = self.calls_in_vain.checked_sub(1) else { return Duration::ZERO };
        BACK_OFF.saturating_mul(2_u32.saturating_pow(doublings)).min(BACK_OFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_vain_come_ever_more_seldom_and_never_end() {
        let mut course = Course::new(1);
        assert_eq!(course.back_off(), Duration::ZERO);
        let pauses = [1, 2, 3, 1000, u32::MAX].map(|calls| {
            course.calls_in_vain = calls;
            course.back_off()
        });
        assert_eq!(pauses, [BACK_OFF, BACK_OFF * 2, BACK_OFF * 4, BACK_OFF_MAX, BACK_OFF_MAX]);
    }

    #[test]
    fn a_line_that_is_lost_at_once_was_a_call_in_vain() {
        let mut course = Course::new(1);
        assert!(!course.was_lost_at_once(), "the first line may be lost at any time");
        course.remade_at = Some(Instant::now());
        assert!(course.was_lost_at_once() && !course.back_off().is_zero());
        assert!(!course.was_lost_at_once(), "now it is called again");
        course.remade_at = Instant::now().checked_sub(LINE_LIFE_MIN);
        assert!(!course.was_lost_at_once() && course.back_off().is_zero());
    }
}
