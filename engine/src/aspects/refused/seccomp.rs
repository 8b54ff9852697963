//! Filters of system calls, seccomp(2), from the `Seccomp` field of `/proc/PID/status`, Linux 3.8.

use super::super::Subject;
use crate::refusal::Refusal;

/// Told of the process: its threads nearly always share them, and once is enough.
pub(super) fn examine(subject: &Subject<'_>) -> Vec<Refusal> {
    let reason = match subject.field("Seccomp") {
        Some("1") => "is in strict seccomp mode",
        Some("2") => "uses seccomp filters",
        _ => return Vec::new(),
    };
    let advice = "Start it without them (for a systemd service: SystemCallFilter= and the other \
                  settings that systemd.exec(5) says use seccomp).";
    vec![Refusal {
        object: subject.process(),
        reason: reason.to_owned(),
        advice: advice.to_owned(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: &str) -> Vec<String> {
        let subject = Subject { pid: 7, tid: 8, status };
        examine(&subject).iter().map(|refusal| refusal.reason.clone()).collect()
    }

    #[test]
    fn each_mode_is_named() {
        assert_eq!(seen("Seccomp:\t2\nSeccomp_filters:\t3\n"), ["uses seccomp filters"]);
        assert_eq!(seen("Seccomp:\t1\n"), ["is in strict seccomp mode"]);
        assert_eq!(seen("Seccomp:\t0\nSeccomp_filters:\t0\n"), [""; 0]);
        assert_eq!(seen(""), [""; 0]);
    }
}
