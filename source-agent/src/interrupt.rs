//! How one thread cuts short what another one waits for.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Raised once, when the tree is to be thawed: from then on nothing is worth waiting for.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt {
    pub(crate) fn raise(&self) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_raised(&self) -> bool {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long, or fails as soon as it is raised.
    pub(crate) fn pause(&self, duration: Duration) -> io::Result<()> {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(raised, duration, |raised| !*raised);
        let (raised, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *raised { Err(io::Error::other("the migration was given up")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Instant;

    #[test]
    fn a_raised_interrupt_ends_a_long_pause() {
        let interrupt = Arc::new(Interrupt::default());
        let waiting = Arc::clone(&interrupt);
        let began = Instant::now();
        let thread = std::thread::spawn(move || waiting.pause(Duration::from_secs(60)));
        interrupt.raise();
        assert!(thread.join().unwrap().is_err());
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn without_one_a_pause_ends_by_itself() {
        assert!(Interrupt::default().pause(Duration::from_millis(1)).is_ok());
    }
}
