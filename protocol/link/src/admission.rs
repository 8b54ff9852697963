//! How many strangers may start a handshake. A handshake costs the destination a signature, and
//! anybody who reaches the port can ask for one, under any address that he likes.
//!
//! What all have together is bounded, and what one address has is bounded by far less, so that one
//! who takes all he can get leaves the door open for others. An address counts for what it has
//! proven to be (QUIC Retry): in its name alone anybody could use up its share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::pace::{Bucket, Pace};

/// Handshakes a second, over time, and at once after a quiet time.
const OF_ALL: Pace = Pace { each: Duration::from_millis(20), burst: 100 };
/// The same for one address. The burst is that of a host that moves twenty trees at once.
const OF_ONE: Pace = Pace { each: Duration::from_millis(100), burst: 40 };
/// Below this many left, an address must prove itself first.
const PRESSURE: u32 = OF_ALL.burst / 2;
/// Handshakes under way at once. A stranger who never finishes holds one for the handshake wait.
pub(crate) const PLACES: usize = 64;
/// Below this many places free, an address must prove itself: forged ones never come back to free
/// theirs, and must not be able to take them all.
const PLACES_PRESSURE: usize = PLACES / 2;
/// Of these, how many one address may hold that has proven itself. One that has not may hold one
/// beside them.
pub(crate) const PLACES_OF_ONE: usize = 8;

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

/// One that knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Knock {
    whose: Whose,
    /// The address has shown that it receives there, so it is not forged.
    is_proven: bool,
}

impl Knock {
    pub(crate) fn new(address: IpAddr, is_proven: bool) -> Self {
        Self { whose: Whose::of(address), is_proven }
    }
}

/// What one stranger has: an IPv4 address, or an IPv6 network of 64 bits, within which everybody
/// picks addresses as he likes (RFC 4291 section 2.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Whose(IpAddr);

impl Whose {
    /// A socket of both families shows IPv4 addresses as IPv6 ones, all of them of one network.
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Everybody who is at the door.
#[derive(Debug)]
pub(crate) struct Admission {
    all: Bucket,
    places_taken: usize,
    /// Only of those who hold a place or have lately come: each has cost a handshake, so [`OF_ALL`]
    /// bounds how many there are.
    each: HashMap<Whose, Share>,
}

/// What one address has of everything.
#[derive(Debug)]
struct Share {
    bucket: Bucket,
    proven: usize,
    unproven: usize,
}

impl Admission {
    pub(crate) fn new(now: Instant) -> Self {
        Self { all: Bucket::new(OF_ALL, now), places_taken: 0, each: HashMap::new() }
    }

    /// One that is admitted holds a place until [`Self::leave`].
    pub(crate) fn judge(&mut self, knock: Knock, now: Instant) -> Verdict {
        self.all.refill(now);
        self.each.retain(|_, share| share.is_of_note(now));
        let places_free = PLACES - self.places_taken;
        let verdict = match knock.is_proven {
            true => self.judge_proven(knock.whose, places_free),
            false => self.judge_unproven(knock.whose, places_free),
        };
        if verdict == Verdict::Admit {
            self.enter(knock, now);
        }
        verdict
    }

    fn judge_proven(&self, whose: Whose, places_free: usize) -> Verdict {
        let has_more = |share: &Share| share.proven < PLACES_OF_ONE && !share.bucket.is_empty();
        let within_share = self.each.get(&whose).is_none_or(has_more);
        match within_share && !self.all.is_empty() && places_free > 0 {
            true => Verdict::Admit,
            false => Verdict::Refuse,
        }
    }

    fn judge_unproven(&self, whose: Whose, places_free: usize) -> Verdict {
        let is_alone = self.each.get(&whose).is_none_or(|share| share.unproven == 0);
        let is_quiet = self.all.left() >= PRESSURE && places_free >= PLACES_PRESSURE;
        if is_alone && is_quiet { Verdict::Admit } else { Verdict::Retry }
    }

    fn enter(&mut self, knock: Knock, now: Instant) {
        self.all.take(now);
        self.places_taken += 1;
        let new = || Share { bucket: Bucket::new(OF_ONE, now), proven: 0, unproven: 0 };
        let share = self.each.entry(knock.whose).or_insert_with(new);
        if knock.is_proven {
            share.bucket.take(now);
        }
        *share.places(knock.is_proven) += 1;
    }

    fn leave(&mut self, knock: Knock) {
        self.places_taken -= 1;
        if let Some(share) = self.each.get_mut(&knock.whose) {
            *share.places(knock.is_proven) -= 1;
        }
    }
}

impl Share {
    fn places(&mut self, is_proven: bool) -> &mut usize {
        if is_proven { &mut self.proven } else { &mut self.unproven }
    }

    /// Not when it says what would be said of an address that never came.
    fn is_of_note(&mut self, now: Instant) -> bool {
        self.bucket.refill(now);
        self.proven > 0 || self.unproven > 0 || !self.bucket.is_full()
    }
}

/// A place in the door; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Mutex<Admission>>,
    knock: Knock,
}

impl Place {
    /// Of one who was admitted just now.
    pub(crate) fn of(admission: &Arc<Mutex<Admission>>, knock: Knock) -> Self {
        Self { admission: Arc::clone(admission), knock }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner).leave(self.knock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of the n-th stranger.
    fn host(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    fn proven(n: u32) -> Knock {
        Knock::new(host(n), true)
    }

    fn unproven(n: u32) -> Knock {
        Knock::new(host(n), false)
    }

    /// A handshake that is over at once.
    fn visit(admission: &mut Admission, knock: Knock, now: Instant) -> Verdict {
        let verdict = admission.judge(knock, now);
        if verdict == Verdict::Admit {
            admission.leave(knock);
        }
        verdict
    }

    fn emptied(now: Instant) -> Admission {
        let mut admission = Admission::new(now);
        for n in 0..OF_ALL.burst {
            assert_eq!(visit(&mut admission, proven(n), now), Verdict::Admit);
        }
        admission
    }

    #[test]
    fn a_quiet_destination_admits_at_once() {
        let now = Instant::now();
        assert_eq!(Admission::new(now).judge(unproven(1), now), Verdict::Admit);
    }

    #[test]
    fn under_pressure_an_unproven_address_must_prove_itself() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        let admitted =
            (0..).take_while(|&n| visit(&mut admission, unproven(n), now) == Verdict::Admit);
        assert_eq!(admitted.count(), 51);
        assert_eq!(admission.judge(unproven(1000), now), Verdict::Retry);
        assert_eq!(admission.judge(proven(1000), now), Verdict::Admit);
    }

    #[test]
    fn unproven_addresses_cannot_take_all_places() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        let admitted = (0..).take_while(|&n| admission.judge(unproven(n), now) == Verdict::Admit);
        assert_eq!(admitted.count(), PLACES - PLACES_PRESSURE + 1);
        assert_eq!(admission.judge(proven(1), now), Verdict::Admit);
    }

    #[test]
    fn one_address_gets_its_share_of_the_places_and_leaves_the_others() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        for _ in 0..PLACES_OF_ONE {
            assert_eq!(admission.judge(proven(1), now), Verdict::Admit);
        }
        assert_eq!(admission.judge(proven(1), now), Verdict::Refuse);
        assert_eq!(admission.judge(proven(2), now), Verdict::Admit);
        admission.leave(proven(1));
        assert_eq!(admission.judge(proven(1), now), Verdict::Admit);
    }

    #[test]
    fn in_the_name_of_an_address_nobody_uses_up_its_share() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        assert_eq!(admission.judge(unproven(1), now), Verdict::Admit);
        for _ in 0..1000 {
            assert_eq!(admission.judge(unproven(1), now), Verdict::Retry);
        }
        for _ in 0..PLACES_OF_ONE {
            assert_eq!(admission.judge(proven(1), now), Verdict::Admit);
        }
    }

    #[test]
    fn one_address_that_comes_again_and_again_leaves_handshakes_for_others() {
        let now = Instant::now();
        let mut admission = Admission::new(now);
        let admitted =
            (0..1000).filter(|_| visit(&mut admission, proven(1), now) == Verdict::Admit);
        assert_eq!(admitted.count(), OF_ONE.burst as usize);
        assert_eq!(admission.judge(proven(2), now), Verdict::Admit);
        let later = now + OF_ONE.each;
        assert_eq!(visit(&mut admission, proven(1), later), Verdict::Admit);
        assert_eq!(visit(&mut admission, proven(1), later), Verdict::Refuse);
    }

    #[test]
    fn an_address_is_what_one_stranger_has() {
        let whose = |text: &str| Whose::of(text.parse().unwrap());
        assert_eq!(whose("2001:db8::1"), whose("2001:db8::ffff:2"));
        assert_ne!(whose("2001:db8::1"), whose("2001:db8:0:1::1"));
        assert_ne!(whose("::ffff:192.0.2.1"), whose("::ffff:192.0.2.2"));
        assert_eq!(whose("::ffff:192.0.2.1"), whose("192.0.2.1"));
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let now = Instant::now();
        let mut admission = emptied(now);
        assert_eq!(admission.each.len(), OF_ALL.burst as usize);
        admission.judge(unproven(1), now + OF_ONE.each * OF_ONE.burst);
        assert_eq!(admission.each.len(), 1);
    }

    #[test]
    fn an_exhausted_destination_refuses_until_time_has_passed() {
        let now = Instant::now();
        let mut admission = emptied(now);
        assert_eq!(visit(&mut admission, proven(1000), now), Verdict::Refuse);
        let later = now + OF_ALL.each;
        assert_eq!(visit(&mut admission, proven(1000), later), Verdict::Admit);
        assert_eq!(visit(&mut admission, proven(1001), later), Verdict::Refuse);
    }

    #[test]
    fn knocking_often_does_not_stop_the_refill() {
        let start = Instant::now();
        let mut admission = emptied(start);
        let admitted = (1..=1000u64).filter(|&ms| {
            let knock = proven(10_000 + u32::try_from(ms).unwrap());
            visit(&mut admission, knock, start + Duration::from_millis(ms)) == Verdict::Admit
        });
        assert_eq!(admitted.count(), 50);
    }
}
