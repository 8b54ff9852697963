//! When what is stuck is tried again: in its own time, however often a source asks meanwhile.
//!
//! A source in doubt asks every two seconds. A wait that began anew with every question would
//! never end while it asks, and it asks because nothing is tried.

use std::time::{Duration, Instant};

/// A disk that was full may have room by now.
pub(super) const STUCK_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Stuck {
    since: Option<Instant>,
}

impl Stuck {
    /// How long to wait still; zero when it is time.
    pub(super) fn wait_left(&mut self, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        STUCK_WAIT.saturating_sub(now.saturating_duration_since(since))
    }

    /// It is tried again, or is not stuck any more.
    pub(super) fn is_over(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_do_not_put_off_the_next_attempt() {
        let (mut stuck, began) = (Stuck::default(), Instant::now());
        let asked = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(stuck.wait_left(asked(0)), STUCK_WAIT);
        for seconds in (2..30).step_by(2) {
            let left = Duration::from_secs(30 - seconds);
            assert_eq!(stuck.wait_left(asked(seconds)), left);
        }
        assert_eq!(stuck.wait_left(asked(31)), Duration::ZERO);
        stuck.is_over();
        assert_eq!(stuck.wait_left(asked(40)), STUCK_WAIT);
    }
}
