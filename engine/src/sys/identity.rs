//! One call as somebody else, by a thread that lives for it alone.

use super::sock::check;
use std::io;

/// SECBIT_NO_SETUID_FIXUP of capabilities(7): the new user keeps our capabilities.
pub(crate) const KEEP_CAPABILITIES: libc::c_ulong = 1 << 2;

/// Effective user and group, and the supplementary groups.
type Identity<'a> = (u32, u32, &'a [u32]);

/// Runs with another identity, and with all capabilities or those that go with it. The kernel
/// remembers it of whoever makes a socket pair, listens or connects.
pub(crate) fn run_as<T: Send>(
    identity: Identity<'_>,
    keeps_capabilities: bool,
    run: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            become_user(identity, keeps_capabilities)?;
            run()
        });
        other.join().map_err(|_| io::Error::other("the thread of another user panicked"))?
    })
}

/// Changes this thread only: the C library's wrappers would change every thread of the process.
fn become_user((uid, gid, groups): Identity<'_>, keeps_capabilities: bool) -> io::Result<()> {
    let keep = u32::MAX;
    let bits = if keeps_capabilities { KEEP_CAPABILITIES } else { 0 };
    // SAFETY: PR_SET_SECUREBITS takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) })?;
    // SAFETY: setgroups(2) reads as many group ids as the count says, which `groups` has.
    check_long(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: setresgid(2) takes three integers; the thread is ours and ends after one call.
    check_long(unsafe { libc::syscall(libc::SYS_setresgid, keep, gid, keep) })?;
    // SAFETY: as above, for setresuid(2).
    check_long(unsafe { libc::syscall(libc::SYS_setresuid, keep, uid, keep) })
}

fn check_long(ret: libc::c_long) -> io::Result<()> {
    check(libc::c_int::try_from(ret).unwrap_or(-1)).map(drop)
}
