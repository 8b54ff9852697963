//! Coming back to a destination that is busy: its door is shut for moments, not for hours.

use std::time::Duration;

use quinn::Endpoint;
use tokio::time::{Instant, sleep};

/// How long a call goes on, on top of its last attempt.
const WAIT: Duration = Duration::from_secs(4);
/// The first pause; each next one is twice as long, up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_millis(800);

/// One call's patience with a destination that is busy.
#[derive(Debug)]
pub(crate) struct Patience {
    begun: Instant,
    wait: Duration,
    pause: Duration,
    /// At least 1 and less than 2, another one for every caller: many that were refused at once
    /// must not come back at once.
    stretch: f64,
}

impl Patience {
    /// The system gives every socket another port.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        let port = endpoint.local_addr().map_or(0, |address| address.port());
        Self::new(WAIT, port)
    }

    fn new(wait: Duration, port: u16) -> Self {
        let stretch = 1.0 + f64::from(port % 97) / 97.0;
        Self { begun: Instant::now(), wait, pause: PAUSE_FIRST, stretch }
    }

    /// After an attempt for which the destination was busy: waits for the next one. The error is
    /// that it was tried for too long, and how long.
    pub(crate) async fn pause(&mut self) -> Result<(), Duration> {
        let tried = self.begun.elapsed();
        if tried >= self.wait {
            return Err(tried);
        }
        sleep(self.pause.mul_f64(self.stretch)).await;
        self.pause = PAUSE_LAST.min(self.pause * 2);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_is_busy_for_good_is_given_up_after_few_attempts() {
        let wait = Duration::from_millis(300);
        let mut patience = Patience::new(wait, 40_000);
        let mut attempts = 0;
        let tried = loop {
            attempts += 1;
            if let Err(tried) = patience.pause().await {
                break tried;
            }
        };
        assert!(tried >= wait, "{tried:?}");
        assert!((2..8).contains(&attempts), "{attempts}");
    }
}
