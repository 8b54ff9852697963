//! The text of `/proc/PID/timers`: four lines a timer, the newest first, proc_pid_timers(5).

use std::io;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::aspects) struct Listed {
    pub(super) id: i32,
    pub(super) signal: i32,
    /// What the signal carries.
    pub(super) value: u64,
    /// SIGEV_*.
    pub(super) notify: u32,
    /// The thread that is notified, if it is a certain one.
    pub(super) tid: Option<i32>,
    /// As the kernel numbers it, which is not always as timer_create(2) was told.
    pub(super) clock: i32,
}

pub(super) fn parse(text: &str) -> io::Result<Vec<Listed>> {
    let lines: Vec<&str> = text.lines().collect();
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the list of timers is malformed");
    lines.chunks(4).map(|lines| timer(lines).ok_or_else(wrong)).collect()
}

fn timer(lines: &[&str]) -> Option<Listed> {
    let [id, signal, notify, clock] = *lines else { return None };
    let (signal, value) = signal.strip_prefix("signal: ")?.split_once('/')?;
    let (notify, whom) = notify.strip_prefix("notify: ")?.split_once('/')?;
    let (whom, number) = whom.split_once('.')?;
    let tid = if whom == "tid" { Some(number.parse().ok()?) } else { None };
    let to_thread = if tid.is_some() { libc::SIGEV_THREAD_ID } else { 0 };
    Some(Listed {
        id: id.strip_prefix("ID: ")?.parse().ok()?,
        signal: signal.parse().ok()?,
        value: u64::from_str_radix(value, 16).ok()?,
        notify: (how(notify)? | to_thread).cast_unsigned(),
        tid,
        clock: clock.strip_prefix("ClockID: ")?.parse().ok()?,
    })
}

fn how(notify: &str) -> Option<i32> {
    match notify {
        "signal" => Some(libc::SIGEV_SIGNAL),
        "none" => Some(libc::SIGEV_NONE),
        "thread" => Some(libc::SIGEV_THREAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_linux_6_18() {
        let text = "ID: 2\nsignal: 14/0000000000000002\nnotify: signal/pid.14010\nClockID: -6\n\
                    ID: 1\nsignal: 34/0000000000001234\nnotify: none/pid.14010\nClockID: 0\n\
                    ID: 0\nsignal: 34/ffffffffffff1234\nnotify: signal/tid.14012\nClockID: 1\n";
        let first = Listed { id: 2, signal: 14, value: 2, notify: 0, tid: None, clock: -6 };
        let second = Listed { id: 1, signal: 34, value: 0x1234, notify: 1, tid: None, clock: 0 };
        let third = Listed {
            id: 0,
            signal: 34,
            value: 0xffff_ffff_ffff_1234,
            notify: 4,
            tid: Some(14012),
            clock: 1,
        };
        assert_eq!(parse(text).unwrap(), [first, second, third]);
    }

    #[test]
    fn no_timers_are_no_lines() {
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn anything_else_is_an_error() {
        let torn = "ID: 2\nsignal: 14/0000000000000002\nnotify: signal/pid.14010\n";
        let unknown = "ID: 2\nsignal: 14/2\nnotify: pigeon/pid.14010\nClockID: 0\n";
        for text in [torn, unknown, "\n", "ID: x\nsignal: 1/1\nnotify: none/pid.1\nClockID: 0\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
