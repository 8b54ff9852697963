//! Making a thread that may do everything into one that may do only what it should.

use super::capability::{CAP_SETPCAP, bits, cap_bytes, cap_header};
use super::{Capabilities, Image, status};
use crate::args;
use crate::batch::Batch;
use crate::error::Object;
use std::io;
use std::sync::LazyLock;

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
/// What the steps themselves take.
const WORKING: u64 = 1 << CAP_SETGID | 1 << CAP_SETUID | 1 << CAP_SETPCAP;
const SECBIT_NO_SETUID_FIXUP: i32 = 1 << 2;

/// Our own, which a new thread is born with.
static OWN: LazyLock<Capabilities> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status::parse(&text).map(|image| image.capabilities).unwrap_or_default()
});

/// Fails with the names of the capabilities that this host, or its agent, cannot give. Without
/// this, some would be lost in silence: nobody is told what the bounding set lacks.
pub(super) fn check(wanted: &Capabilities) -> io::Result<()> {
    let bounded = (wanted.bounding | wanted.inheritable) & !OWN.bounding;
    let missing = wanted.permitted & !OWN.permitted | bounded;
    if missing == 0 {
        return Ok(());
    }
    let names: Vec<_> = bits(missing).map(name).collect();
    let why = format!("this host's agent cannot give {}", names.join(", "));
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Setting an id to -1 leaves it as it is, setresuid(2): in a thread that is still root's.
pub(super) fn check_ids(image: &Image) -> io::Result<()> {
    let ids = [image.user, image.group];
    let named = ids.iter().flat_map(|ids| [ids.real, ids.effective, ids.saved, ids.file_system]);
    match named.chain(image.groups.iter().copied()).any(|id| id == u32::MAX) {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "4294967295 is nobody's id")),
        false => Ok(()),
    }
}

/// Steps 1 to 3.
pub(super) fn prepare(wanted: &Capabilities, object: &Object, batch: &mut Batch) {
    let clear = args![libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0];
    batch.call("clear ambient capabilities in", object, libc::SYS_prctl, clear);
    let keep = args![libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP];
    batch.call("keep capabilities in", object, libc::SYS_prctl, keep);
    let permitted = wanted.permitted | WORKING;
    let working = Capabilities { permitted, effective: permitted, ..*wanted };
    set("set inheritable capabilities in", &working, object, batch);
    for bit in bits(OWN.bounding & !wanted.bounding) {
        let drop = args![libc::PR_CAPBSET_DROP, bit];
        batch.call("narrow the bounding set in", object, libc::SYS_prctl, drop);
    }
}

/// Step 4.
pub(super) fn set_ids(image: &Image, object: &Object, batch: &mut Batch) {
    let bytes: Vec<u8> = image.groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
    let groups = batch.bytes(&bytes);
    let args = args![image.groups.len(), groups];
    batch.call("set the groups in", object, libc::SYS_setgroups, args);
    let (user, group) = (image.user, image.group);
    let args = args![group.real, group.effective, group.saved];
    batch.call("set group ids in", object, libc::SYS_setresgid, args);
    let args = args![user.real, user.effective, user.saved];
    batch.call("set user ids in", object, libc::SYS_setresuid, args);
    // These return the id before and cannot fail with these capabilities.
    batch.try_call(libc::SYS_setfsgid, args![group.file_system]);
    batch.try_call(libc::SYS_setfsuid, args![user.file_system]);
}

/// Steps 5 to 7.
pub(super) fn finish(image: &Image, object: &Object, batch: &mut Batch) {
    for bit in bits(image.capabilities.ambient) {
        let raise = args![libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, bit, 0, 0];
        batch.call("raise ambient capabilities in", object, libc::SYS_prctl, raise);
    }
    let securebits = args![libc::PR_SET_SECUREBITS, image.securebits];
    batch.call("set the securebits in", object, libc::SYS_prctl, securebits);
    set("set capabilities in", &image.capabilities, object, batch);
    if image.no_new_privs {
        let args = args![libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0];
        batch.call("set no_new_privs in", object, libc::SYS_prctl, args);
    }
}

fn set(action: &'static str, capabilities: &Capabilities, object: &Object, batch: &mut Batch) {
    let header = batch.bytes(&cap_header());
    let sets = batch.bytes(&cap_bytes(capabilities));
    batch.call(action, object, libc::SYS_capset, args![header, sets]);
}

/// As capabilities(7) has it; a newer one by its number.
fn name(bit: u32) -> String {
    const NAMES: [&str; 41] = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
        "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
        "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
        "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
        "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
        "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
        "PERFMON", "BPF", "CHECKPOINT_RESTORE",
    ];
    match NAMES.get(bit as usize) {
        Some(name) => format!("CAP_{name}"),
        None => format!("capability {bit}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the tests may ask for.
    pub(in super::super) fn own() -> Capabilities {
        *OWN
    }

    #[test]
    fn a_capability_is_named_as_in_the_manual() {
        assert_eq!([name(0), name(24), name(40)], ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_CHECKPOINT_RESTORE"]);
        assert_eq!(name(41), "capability 41");
    }
}
