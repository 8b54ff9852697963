//! Whether a feature is here, and if not, why.

use super::{Feature, Permission};
use std::{fs, io};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Present,
    Missing(Absence),
    /// It could not be tried out, because we are not root.
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
        let Err(error) = (self.probe)() else { return Presence::Present };
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        let absence = |advice| Absence { why: self.why(&error, is_denied), advice };
        if !is_denied {
            return Presence::Missing(absence(self.advice.to_owned()));
        }
        if nix::unistd::geteuid().is_root() {
            return Presence::Missing(absence(self.permission.advice()));
        }
        Presence::Unknown(absence("Ask as root.".to_owned()))
    }

    fn why(&self, error: &io::Error, is_denied: bool) -> String {
        let mut why = error.to_string();
        if !is_denied {
            return why;
        }
        if let Some((capability, number)) = self.permission.capability {
            let has = if has_capability(number) { "has" } else { "lacks" };
            why += &format!("; this process {has} {capability}");
        }
        if let Some(setting) = self.permission.sysctl.and_then(setting) {
            why += &format!("; {setting}");
        }
        why
    }
}

impl Permission {
    /// Root has everything, unless somebody has taken it away.
    fn advice(self) -> String {
        let capability = self.capability.map(|(name, _)| format!("give the command {name}"));
        let sysctl = self.sysctl.map(|name| format!("see to the sysctl {name}"));
        let others = "look for a container, a security module or a seccomp filter that forbids it";
        let wishes = capability.into_iter().chain(sysctl).chain([others.to_owned()]);
        let text = wishes.collect::<Vec<_>>().join(", or ");
        let (first, rest) = text.split_at(1);
        format!("{}{rest}.", first.to_uppercase())
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
    fn what_is_denied_is_missing_for_root_and_unknown_for_others() {
        let found = fails(|| Err(io::Error::from_raw_os_error(libc::EPERM))).look();
        match found {
            Presence::Missing(absence) if nix::unistd::geteuid().is_root() => {
                assert!(
                    absence.why.contains("; this process has CAP_SYS_PTRACE; kernel.pid_max is ")
                );
                assert!(absence.advice.starts_with("Give the command CAP_SYS_PTRACE, or see to"));
            }
            Presence::Unknown(absence) => assert_eq!(absence.advice, "Ask as root."),
            other => panic!("{other:?}"),
        }
    }
}
