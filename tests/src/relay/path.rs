//! One direction of the relay: when does a datagram arrive, if at all?

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What the network is like. Can change at any time; datagrams on their way keep their fate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    pub delay_ms: u64,
    /// Of a thousand datagrams. Which ones follows from the seed.
    pub loss_permille: u64,
    /// 0: no limit.
    pub bytes_per_s: u64,
    /// Nothing passes, in either direction, until it heals.
    pub is_cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives(Instant),
    Lost,
}

/// A datagram that would wait longer than this for its turn is dropped, as a router's queue does. A
/// sender that sees no loss would never find out how slow the link is.
const QUEUE_MAX: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Path {
    random: u64,
    /// When the link has sent everything that was accepted so far.
    free_at: Option<Instant>,
}

impl Path {
    pub fn new(seed: u64) -> Self {
        Self { random: seed, free_at: None }
    }

    /// Decides over a datagram of `length` bytes that came at `now`.
    pub fn handle(&mut self, conditions: &Conditions, now: Instant, length: usize) -> Fate {
        let is_lost = self.draw() % 1000 < conditions.loss_permille;
        if conditions.is_cut || is_lost {
            return Fate::Lost;
        }
        let begins = self.free_at.map_or(now, |free| free.max(now));
        if begins - now > QUEUE_MAX {
            return Fate::Lost;
        }
        let sent = begins + transmission(length, conditions.bytes_per_s);
        self.free_at = Some(sent);
        Fate::Arrives(sent + Duration::from_millis(conditions.delay_ms))
    }

    /// splitmix64: short, and the same on every machine.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn transmission(length: usize, bytes_per_s: u64) -> Duration {
    let nanoseconds = (length as u64).saturating_mul(1_000_000_000).checked_div(bytes_per_s);
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(conditions: &Conditions, seed: u64, count: u32) -> Vec<Option<Duration>> {
        let (mut path, now) = (Path::new(seed), Instant::now());
        let fates = (0..count).map(|_| path.handle(conditions, now, 1000));
        fates
            .map(|fate| match fate {
                Fate::Arrives(at) => Some(at - now),
                Fate::Lost => None,
            })
            .collect()
    }

    #[test]
    fn a_good_path_adds_nothing() {
        assert_eq!(arrivals(&Conditions::default(), 1, 3), [Some(Duration::ZERO); 3]);
    }

    #[test]
    fn delay_is_added_to_every_datagram() {
        let slow = Conditions { delay_ms: 40, ..Conditions::default() };
        assert_eq!(arrivals(&slow, 1, 2), [Some(Duration::from_millis(40)); 2]);
    }

    #[test]
    fn datagrams_take_their_turn_at_the_rate() {
        let throttled = Conditions { bytes_per_s: 1_000_000, ..Conditions::default() };
        let expected = [1, 2, 3].map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!(arrivals(&throttled, 1, 3), expected);
    }

    #[test]
    fn a_full_queue_drops() {
        let throttled = Conditions { bytes_per_s: 1_000_000, ..Conditions::default() };
        let arrived = arrivals(&throttled, 1, 100).iter().filter(|a| a.is_some()).count();
        // 50 ms of queue at 1 ms each, and the one being sent.
        assert_eq!(arrived, 51);
    }

    #[test]
    fn loss_is_as_frequent_as_asked_and_follows_the_seed() {
        let lossy = Conditions { loss_permille: 100, ..Conditions::default() };
        let lost = |seed| -> Vec<bool> {
            arrivals(&lossy, seed, 10_000).iter().map(Option::is_none).collect()
        };
        let count = lost(7).iter().filter(|&&lost| lost).count();
        assert!((900..1100).contains(&count), "{count} of 10000");
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(8));
    }

    #[test]
    fn nothing_passes_a_cut() {
        let cut = Conditions { is_cut: true, ..Conditions::default() };
        assert_eq!(arrivals(&cut, 1, 5), [None; 5]);
    }
}
