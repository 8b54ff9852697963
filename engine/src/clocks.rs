//! Clocks that go on: the tree's own CLOCK_MONOTONIC and CLOCK_BOOTTIME.
//!
//! A restored tree lives in a time namespace (time_namespaces(7), Linux 5.6) whose offsets make
//! both clocks continue from the source's values; runtimes panic when they run backwards.

use crate::error::{Error, Object, OnObject as _};
use nix::time::{ClockId, clock_gettime};
use std::{fs, io};

const SECOND_NS: i64 = 1_000_000_000;

/// Nanoseconds of CLOCK_MONOTONIC and CLOCK_BOOTTIME.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Clocks {
    #[prost(int64, tag = "1")]
    pub monotonic_ns: i64,
    #[prost(int64, tag = "2")]
    pub boottime_ns: i64,
}

impl Clocks {
    /// This host's clocks, as its first time namespace shows them.
    pub fn of_this_host() -> Result<Self, Error> {
        let shown = Self {
            monotonic_ns: read(ClockId::CLOCK_MONOTONIC)?,
            boottime_ns: read(ClockId::CLOCK_BOOTTIME)?,
        };
        Ok(shown.minus(Self::offsets_of("self")?))
    }

    /// The clocks as a process sees them.
    pub fn of_process(pid: i32) -> Result<Self, Error> {
        Ok(Self::of_this_host()?.plus(Self::offsets_of(&pid.to_string())?))
    }

    /// The offsets of a process's time namespace; zero on a kernel without them.
    fn offsets_of(process: &str) -> Result<Self, Error> {
        let path = format!("/proc/{process}/timens_offsets");
        match fs::read_to_string(&path) {
            Ok(text) => parse_offsets(&text)
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
                .on("read", || Object::File { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).on("read", || Object::File { path }),
        }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            monotonic_ns: self.monotonic_ns.saturating_add(other.monotonic_ns),
            boottime_ns: self.boottime_ns.saturating_add(other.boottime_ns),
        }
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            monotonic_ns: self.monotonic_ns.saturating_sub(other.monotonic_ns),
            boottime_ns: self.boottime_ns.saturating_sub(other.boottime_ns),
        }
    }

    /// The text that `/proc/PID/timens_offsets` takes.
    pub(crate) fn as_offsets(self) -> String {
        let line = |name: &str, ns: i64| {
            format!("{name} {} {}\n", ns.div_euclid(SECOND_NS), ns.rem_euclid(SECOND_NS))
        };
        line("monotonic", self.monotonic_ns) + &line("boottime", self.boottime_ns)
    }
}

fn read(clock: ClockId) -> Result<i64, Error> {
    let time = clock_gettime(clock).on("read the clock of", || Object::Host)?;
    Ok(time.tv_sec() * SECOND_NS + time.tv_nsec())
}

/// Lines such as `monotonic           5         0`.
pub(crate) fn parse_offsets(text: &str) -> Option<Clocks> {
    let mut clocks = Clocks::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        let seconds: i64 = fields.next()?.parse().ok()?;
        let nanoseconds: i64 = fields.next()?.parse().ok()?;
        let total = seconds.checked_mul(SECOND_NS)?.checked_add(nanoseconds)?;
        match name {
            "monotonic" => clocks.monotonic_ns = total,
            "boottime" => clocks.boottime_ns = total,
            _ => {}
        }
    }
    Some(clocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_understood_as_the_kernel_prints_them() {
        let text = "monotonic           5         7\nboottime           -2         1\n";
        let clocks = parse_offsets(text).unwrap();
        assert_eq!(clocks, Clocks { monotonic_ns: 5_000_000_007, boottime_ns: -1_999_999_999 });
        assert_eq!(parse_offsets(&clocks.as_offsets()), Some(clocks));
    }

    #[test]
    fn our_own_clocks_are_those_of_a_process_with_our_namespace() {
        let before = Clocks::of_this_host().unwrap();
        let ours = Clocks::of_process(i32::try_from(std::process::id()).unwrap()).unwrap();
        let offset = Clocks::offsets_of("self").unwrap();
        let passed = ours.minus(before).minus(offset);
        assert!((0..SECOND_NS).contains(&passed.monotonic_ns));
    }
}
