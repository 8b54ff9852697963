//! Capabilities by their names, capabilities(7).

/// In the order of their numbers, as of Linux 5.9.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// One bit a capability. "*" is all of them; the error is a name that none has.
pub(super) fn mask(names: &[String]) -> Result<u64, String> {
    let bit = |name: &String| {
        let plain = name.to_lowercase();
        let plain = plain.strip_prefix("cap_").unwrap_or(&plain).to_owned();
        match NAMES.iter().position(|known| *known == plain) {
            Some(number) => Ok(1 << number),
            None if plain == "*" => Ok(u64::MAX),
            None => Err(name.clone()),
        }
    };
    names.iter().try_fold(0, |mask, name| bit(name).map(|bit| mask | bit))
}

/// "CAP_KILL, CAP_BPF"; those that a newer kernel has invented by their numbers.
pub(super) fn names(mask: u64) -> String {
    let names = (0..64).filter(|number| mask & (1 << number) != 0);
    let name = |number: usize| match NAMES.get(number) {
        Some(name) => format!("CAP_{}", name.to_uppercase()),
        None => format!("capability {number}"),
    };
    names.map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_the_kernels() {
        let named = |text: &str| mask(&[text.to_owned()]);
        assert_eq!(named("CAP_SYS_ADMIN"), Ok(1 << 21));
        assert_eq!(named("checkpoint_restore"), Ok(1 << 40));
        assert_eq!(named("*"), Ok(u64::MAX));
        assert_eq!(named("sys_everything"), Err("sys_everything".to_owned()));
        assert_eq!(names(1 << 21 | 1 << 5 | 1 << 50), "CAP_KILL, CAP_SYS_ADMIN, capability 50");
    }
}
