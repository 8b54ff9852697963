//! Whether a feature is here, and if not, why.

use super::{Feature, Permission};
use std::{fs, io};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Present,
    Missing(Absence),
    /// It could not be tried out: we are not root, or the host has no room for it.
    Unknown(Absence),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// What the kernel said or did.
    pub why: String,
    /// A sentence: what the operator can do.
    pub advice: String,
}

impl Feature {
    pub fn look(&self) -> Presence {
        match (self.probe)() {
            Ok(()) => Presence::Present,
            Err(error) if is_shortage(&error) => {
                Presence::Unknown(Absence::new(error.to_string(), MORE_ROOM))
            }
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                Presence::Missing(Absence::new(error.to_string(), self.advice))
            }
            Err(error) => self.permission.denied(&error),
        }
    }
}

const MORE_ROOM: &str = "Ask again when this host has more room: open files, memory, processes.";

/// The host has no room for a trial, which says nothing of what its kernel can do.
fn is_shortage(error: &io::Error) -> bool {
    let shortages =
        [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::ENOSPC, libc::EDQUOT];
    error.raw_os_error().is_some_and(|errno| shortages.contains(&errno))
}

impl Absence {
    fn new(why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { why: why.into(), advice: advice.into() }
    }
}

impl Permission {
    fn denied(self, error: &io::Error) -> Presence {
        let lacks = self.capability.filter(|(_, number)| !has_capability(*number));
        let mut why = error.to_string();
        if let Some((name, _)) = self.capability {
            let has = if lacks.is_some() { "lacks" } else { "has" };
            why += &format!("; this process {has} {name}");
        }
        if let Some(setting) = self.sysctl.and_then(setting) {
            why += &format!("; {setting}");
        }
        if nix::unistd::geteuid().is_root() {
            let advice = self.advice(lacks.map(|(name, _)| name));
            return Presence::Missing(Absence::new(why, advice));
        }
        Presence::Unknown(Absence::new(why, "Ask as root."))
    }

    /// Root has everything, unless somebody has taken it away.
    fn advice(self, lacking: Option<&str>) -> String {
        let others = "Look for a container, a security module or a seccomp filter that forbids it";
        let capability = lacking.map(|name| format!(", or give the command {name}"));
        let sysctl = self.sysctl.map(|name| format!(", or see to the sysctl {name}"));
        let [capability, sysctl] = [capability, sysctl].map(Option::unwrap_or_default);
        format!("{others}{capability}{sysctl}.")
    }
}

/// `CapEff` of proc_pid_status(5).
fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.unwrap_or(0) >> number & 1 == 1
}

/// "vm.x is 1"; `None` when there is no such sysctl here.
fn setting(name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(format!("{name} is {}", value.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::{NEWER_KERNEL, Need, SYS_PTRACE};
    use super::*;

    fn fails(with: fn() -> io::Result<()>) -> Feature {
        Feature {
            name: "failing(2)",
            since: "1.0",
            need: Need::Useful,
            loss: "Nothing is lost.",
            advice: NEWER_KERNEL,
            permission: Permission::of(SYS_PTRACE).and("kernel.pid_max"),
            probe: with,
        }
    }

    #[test]
    fn what_the_kernel_does_not_know_is_missing() {
        let found = fails(|| Err(io::Error::from_raw_os_error(libc::ENOSYS))).look();
        let Presence::Missing(Absence { why, advice }) = found else { panic!("{found:?}") };
        assert_eq!(why, "Function not implemented (os error 38)");
        assert_eq!(advice, NEWER_KERNEL);
    }

    #[test]
    fn a_host_without_room_says_nothing_of_its_kernel() {
        let found = fails(|| Err(io::Error::from_raw_os_error(libc::EMFILE))).look();
        assert!(matches!(found, Presence::Unknown(_)), "{found:?}");
    }

    #[test]
    fn what_is_denied_is_missing_for_root_and_unknown_for_others() {
        let found = fails(|| Err(io::Error::from_raw_os_error(libc::EPERM))).look();
        match found {
            Presence::Missing(absence) if nix::unistd::geteuid().is_root() => {
                assert!(
                    absence.why.contains("; this process has CAP_SYS_PTRACE; kernel.pid_max is ")
                );
                assert!(absence.advice.ends_with("it, or see to the sysctl kernel.pid_max."));
            }
            Presence::Unknown(absence) => assert_eq!(absence.advice, "Ask as root."),
            other => panic!("{other:?}"),
        }
    }
}
