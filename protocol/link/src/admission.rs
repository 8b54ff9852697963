//! How many strangers may start a handshake. A handshake costs the destination a signature, and
//! anybody who reaches the port can ask for one, under any address that he likes.

use std::time::{Duration, Instant};

/// Handshakes a second, over time.
const RATE: u32 = 50;
/// Handshakes at once, after a quiet time.
const BURST: u32 = 100;
/// Below this many left, an address must prove itself first.
const PRESSURE: u32 = BURST / 2;
/// Handshakes under way at once. A stranger who never finishes holds one for the handshake wait.
pub(crate) const PLACES: usize = 64;
/// Below this many places free, an address must prove itself: forged ones never come back to free
/// theirs, and must not be able to take them all.
const PLACES_PRESSURE: usize = PLACES / 2;

/// What to do with one that knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Begin the handshake.
    Admit,
    /// Make it show that it receives at its address (QUIC Retry); costs no signature and no memory.
    Retry,
    /// Turn it away.
    Refuse,
}

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Admission {
    left: u32,
    filled: Instant,
}

impl Admission {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now }
    }

    /// `validated`: the address has shown that it receives there, so it is not forged.
    /// `places_free`: how many of [`PLACES`] no handshake holds now.
    pub(crate) fn judge(&mut self, validated: bool, places_free: usize, now: Instant) -> Verdict {
        self.refill(now);
        if !validated && (self.left < PRESSURE || places_free < PLACES_PRESSURE) {
            return Verdict::Retry;
        }
        if self.left == 0 || places_free == 0 {
            return Verdict::Refuse;
        }
        self.left -= 1;
        Verdict::Admit
    }

    /// Moves `filled` by whole tokens only: what is too short for one counts next time.
    fn refill(&mut self, now: Instant) {
        const EACH: Duration = Duration::from_micros(1_000_000 / RATE as u64);
        let passed = now.saturating_duration_since(self.filled).as_micros() / EACH.as_micros();
        let tokens = u32::try_from(passed).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(tokens).min(BURST);
        self.filled = if self.left == BURST { now } else { self.filled + EACH * tokens };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emptied(now: Instant) -> Admission {
        let mut admission = Admission::new(now);
        for _ in 0..BURST {
            assert_eq!(admission.judge(true, PLACES, now), Verdict::Admit);
        }
        admission
    }

    #[test]
    fn a_quiet_destination_admits_at_once() {
        let now = Instant::now();
        assert_eq!(Admission::new(now).judge(false, PLACES, now), Verdict::Admit);
    }

    #[test]
    fn under_pressure_an_unproven_address_must_prove_itself() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        while admission.judge(false, PLACES, now) == Verdict::Admit {}
        assert_eq!(admission.judge(false, PLACES, now), Verdict::Retry);
        assert_eq!(admission.judge(true, PLACES, now), Verdict::Admit);
    }

    #[test]
    fn unproven_addresses_cannot_take_all_places() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        assert_eq!(admission.judge(false, PLACES_PRESSURE - 1, now), Verdict::Retry);
        assert_eq!(admission.judge(true, PLACES_PRESSURE - 1, now), Verdict::Admit);
        assert_eq!(admission.judge(true, 0, now), Verdict::Refuse);
    }

    #[test]
    fn an_exhausted_destination_refuses_until_time_has_passed() {
        let now = Instant::now();
        let mut admission = emptied(now);
        assert_eq!(admission.judge(true, PLACES, now), Verdict::Refuse);
        let later = now + Duration::from_millis(20);
        assert_eq!(admission.judge(true, PLACES, later), Verdict::Admit);
        assert_eq!(admission.judge(true, PLACES, later), Verdict::Refuse);
    }

    #[test]
    fn knocking_often_does_not_stop_the_refill() {
        let start = Instant::now();
        let mut admission = emptied(start);
        let admitted = (1..=1000u64)
            .filter(|ms| {
                admission.judge(true, PLACES, start + Duration::from_millis(*ms)) == Verdict::Admit
            })
            .count();
        assert_eq!(admitted, RATE as usize);
    }
}
