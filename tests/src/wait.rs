//! Bounded waiting: every wait of a test has a limit and says what it waited for.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long a test waits for what should take milliseconds. Generous, for a loaded machine: a limit
/// is there to end a hung test, not to judge speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(5);

/// Asks `question` again and again until it answers with something, or fails naming `what`.
pub fn until<T>(
    limit: Duration,
    what: impl Fn() -> String,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if started.elapsed() > limit {
            bail!("waited {limit:?} in vain for {}", what());
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_vain_says_what_it_waited_for() {
        let error = until(Duration::ZERO, || "the moon".into(), || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().ends_with("for the moon"));
    }

    #[test]
    fn an_answer_ends_the_wait() {
        let mut asked = 0;
        let answer = until(PATIENCE, String::new, || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(answer.unwrap(), 3);
    }
}
