//! A timer that is read like a file.
//!
//! The tree's clocks go on on the destination (a time namespace sees to that), so a timer on one of
//! them is armed again for the very instant it was going to expire, and what was missed during the
//! move is counted. Only the owner can do that: in our own time namespace the instant is another.

use super::{ClockShifts, DescriptionImage, Kind, Open, Owner, Place, Seen, Tree, nonsense, sole};
use crate::args;
use crate::batch::Batch;
use crate::error::{Error, OnObject as _};
use crate::sys;
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::OwnedFd;

pub(super) struct Timerfd;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// CLOCK_*.
    #[prost(int32, tag = "1")]
    clock: i32,
    /// TFD_TIMER_ABSTIME (1), TFD_TIMER_CANCEL_ON_SET (2), as last armed.
    #[prost(int32, tag = "2")]
    flags: i32,
    /// 0 when it does not repeat.
    #[prost(uint64, tag = "3")]
    interval_ns: u64,
    /// 0 when it is not armed.
    #[prost(uint64, tag = "4")]
    remaining_ns: u64,
    /// When it expires, on the tree's own clock.
    #[prost(uint64, tag = "5")]
    expires_ns: u64,
    /// Expirations that nobody has read yet.
    #[prost(uint64, tag = "6")]
    ticks: u64,
}

impl Kind for Timerfd {
    const NAME: &'static str = "timerfd";
    const NEEDS_OWNER: bool = true;
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.link == "anon_inode:[timerfd]"
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        read(&of[0], tree.clock_shifts(of[0].seen.pid)).on("read", || of[0].seen.object(Self::NAME))
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        match image.remaining_ns {
            0 => format!("clock {}, not armed", image.clock),
            left => format!("clock {}, expires in {} ms", image.clock, left / 1_000_000),
        }
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![sys::fd::timerfd(image.clock).on("make", || at.object(Self::NAME))?])
    }

    fn connect(
        image: &Image,
        _: &DescriptionImage,
        owner: Owner,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let object = owner.object(Self::NAME);
        if image.remaining_ns > 0 {
            let (flags, value_ns) = arming(image);
            let value = setting(image.interval_ns, value_ns)
                .ok_or_else(|| nonsense(Self::NAME, "expires beyond the end of time"))?;
            let value = batch.bytes(&value);
            let args = args![owner.fd, flags, value, 0];
            batch.call("arm", &object, libc::SYS_timerfd_settime, args);
        }
        // Arming forgets the count; a count of 0 is not accepted.
        if image.ticks > 0 {
            let ticks = batch.bytes(&image.ticks.to_ne_bytes());
            let args = args![owner.fd, sys::fd::TFD_IOC_SET_TICKS, ticks];
            batch.call("set the count of", &object, libc::SYS_ioctl, args);
        }
        Ok(())
    }
}

/// The remaining time is asked for first: that brings the count in fdinfo up to date. Which
/// process arms it does not matter, so only the clock of one of them is looked at.
fn read(open: &Open<'_>, shifts: ClockShifts) -> io::Result<Image> {
    let remaining = sys::fd::timerfd_remaining(open.local)?;
    let fresh = std::fs::read_to_string(format!("/proc/{}/fdinfo/{}", open.seen.pid, open.seen.fd))?;
    let seen = Seen { fdinfo: fresh, ..open.seen.clone() };
    let clock = number(&seen, "clockid", 10)?;
    let remaining_ns = nanoseconds(remaining.it_value.tv_sec, remaining.it_value.tv_nsec);
    Ok(Image {
        clock,
        flags: number(&seen, "settime flags", 8)?,
        interval_ns: nanoseconds(remaining.it_interval.tv_sec, remaining.it_interval.tv_nsec),
        remaining_ns,
        expires_ns: now_ns(clock, shifts)?.saturating_add(remaining_ns),
        ticks: u64::try_from(number(&seen, "ticks", 10)?).unwrap_or(0),
    })
}

fn number(seen: &Seen, name: &str, radix: u32) -> io::Result<i32> {
    seen.field(name)
        .and_then(|text| i32::from_str_radix(text, radix).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {name}")))
}

const SECOND_NS: u64 = 1_000_000_000;

fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    let (seconds, nanoseconds) = (seconds.cast_unsigned(), nanoseconds.cast_unsigned());
    seconds.saturating_mul(SECOND_NS).saturating_add(nanoseconds)
}

/// The clock as the process sees it.
fn now_ns(clock: i32, shifts: ClockShifts) -> io::Result<u64> {
    let clock = clock_without_alarm(clock);
    let shift_ns = match clock {
        libc::CLOCK_MONOTONIC => shifts.monotonic_ns,
        libc::CLOCK_BOOTTIME => shifts.boottime_ns,
        _ => 0,
    };
    let now = clock_gettime(ClockId::from_raw(clock))?;
    Ok(nanoseconds(now.tv_sec(), now.tv_nsec()).saturating_add_signed(shift_ns))
}

/// An alarm clock wakes the host; it tells the same time.
fn clock_without_alarm(clock: i32) -> i32 {
    match clock {
        libc::CLOCK_REALTIME_ALARM => libc::CLOCK_REALTIME,
        libc::CLOCK_BOOTTIME_ALARM => libc::CLOCK_BOOTTIME,
        other => other,
    }
}

/// A relative timer on the wall clock counts time, not the clock: it goes on with what was left.
fn arming(image: &Image) -> (i32, u64) {
    let steady = clock_without_alarm(image.clock) != libc::CLOCK_REALTIME;
    if steady {
        (libc::TFD_TIMER_ABSTIME, image.expires_ns)
    } else if image.flags & libc::TFD_TIMER_ABSTIME != 0 {
        (image.flags, image.expires_ns)
    } else {
        (0, image.remaining_ns)
    }
}

/// `struct itimerspec`: the interval, then the value.
fn setting(interval_ns: u64, value_ns: u64) -> Option<Vec<u8>> {
    let words = [
        interval_ns / SECOND_NS,
        interval_ns % SECOND_NS,
        value_ns / SECOND_NS,
        value_ns % SECOND_NS,
    ];
    words.iter().map(|&word| i64::try_from(word).ok().map(i64::to_ne_bytes)).collect::<Option<Vec<_>>>()
        .map(|words| words.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::trip::move_to_child;
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    fn armed(clock: i32, value_ms: i64, interval_ms: i64) -> OwnedFd {
        let time = |ms: i64| libc::timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
        let value =
            libc::itimerspec { it_interval: time(interval_ms), it_value: time(value_ms) };
        let timer = sys::fd::timerfd(clock).unwrap();
        sys::fd::arm_timerfd(timer.as_fd(), 0, &value).unwrap();
        timer
    }

    #[test]
    fn expires_at_the_same_instant() {
        let timer = armed(libc::CLOCK_MONOTONIC, 60_000, 700);
        let (before, after) = move_to_child(&[&timer]).images::<Image>();
        assert_eq!(before[0].interval_ns, 700_000_000);
        assert_eq!(after[0].interval_ns, 700_000_000);
        let error_ns = before[0].expires_ns.abs_diff(after[0].expires_ns);
        assert!(error_ns < 100_000_000, "{error_ns} ns apart");
        assert!(after[0].remaining_ns < before[0].remaining_ns);
    }

    #[test]
    fn unread_expirations_are_not_lost() {
        let timer = armed(libc::CLOCK_BOOTTIME, 1, 0);
        std::thread::sleep(Duration::from_millis(5));
        let (before, after) = move_to_child(&[&timer]).images::<Image>();
        assert_eq!((before[0].ticks, before[0].remaining_ns), (1, 0));
        assert_eq!((after[0].ticks, after[0].remaining_ns), (1, 0));
    }

    #[test]
    fn a_timer_on_the_wall_clock_goes_on_with_what_was_left() {
        let timer = armed(libc::CLOCK_REALTIME, 60_000, 0);
        let (before, after) = move_to_child(&[&timer]).images::<Image>();
        assert_eq!(before[0].flags, after[0].flags);
        assert!(before[0].remaining_ns.abs_diff(after[0].remaining_ns) < 1_000_000_000);
    }

    #[test]
    fn one_that_was_never_armed_stays_so() {
        let timer = sys::fd::timerfd(libc::CLOCK_MONOTONIC).unwrap();
        let (before, after) = move_to_child(&[&timer]).images::<Image>();
        assert_eq!((before[0].remaining_ns, after[0].remaining_ns), (0, 0));
    }
}
