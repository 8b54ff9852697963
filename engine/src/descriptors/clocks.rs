//! How far the clocks of a process are ahead of ours: time_namespaces(7).

use crate::kinds::ClockShifts;

/// A kernel without time namespaces, or a process that is gone, has none.
pub(super) fn shifts(pid: i32) -> ClockShifts {
    let (theirs, ours) = (offsets(&pid.to_string()), offsets("self"));
    ClockShifts {
        monotonic_ns: theirs.monotonic_ns.saturating_sub(ours.monotonic_ns),
        boottime_ns: theirs.boottime_ns.saturating_sub(ours.boottime_ns),
    }
}

fn offsets(process: &str) -> ClockShifts {
    let text = std::fs::read_to_string(format!("/proc/{process}/timens_offsets"));
    let text = text.unwrap_or_default();
    let offset = |name| text.lines().find_map(|line| parse(line, name)).unwrap_or(0);
    ClockShifts { monotonic_ns: offset("monotonic"), boottime_ns: offset("boottime") }
}

const SECOND_NS: i64 = 1_000_000_000;

/// "monotonic   86400   0": seconds and nanoseconds.
pub(super) fn parse(line: &str, name: &str) -> Option<i64> {
    let mut words = line.strip_prefix(name)?.split_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (words.next()?.ok()?, words.next()?.ok()?);
    seconds.checked_mul(SECOND_NS)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_from_the_line_of_their_clock() {
        assert_eq!(parse("monotonic    -3   5", "monotonic"), Some(-2_999_999_995));
        assert_eq!(parse("boottime     86400         0", "monotonic"), None);
    }

    #[test]
    fn a_process_of_our_own_namespace_has_our_clocks() {
        assert_eq!(shifts(std::process::id().cast_signed()), ClockShifts::default());
    }
}
