//! Looking up paths from another root or directory, by a thread that lives for it alone.

use super::sock::check;
use nix::sched::{CloneFlags, unshare};
use std::io;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};

/// What a thread takes for its place in the file tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    Root,
    WorkingDirectory,
}

/// Runs with this directory for its root, or for its working directory.
pub(crate) fn run_in<T: Send>(
    directory: impl AsFd + Sync,
    taken_as: As,
    run: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let apart = scope.spawn(|| {
            // Until here all threads of a process have one root and one working directory.
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::fchdir(directory.as_fd())?;
            if taken_as == As::Root {
                nix::unistd::chroot(".")?;
            }
            run()
        });
        apart.join().map_err(|_| io::Error::other("the thread of another root panicked"))?
    })
}

/// An empty file system in memory that is mounted nowhere, and is gone with the last that uses it:
/// fsopen(2), fsmount(2), Linux 5.2.
pub(crate) fn nowhere() -> io::Result<OwnedFd> {
    const CLOSE_ON_EXEC: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    // SAFETY: fsopen(2) reads a name that ends in a zero.
    let fs = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOSE_ON_EXEC) })?;
    let (fs_number, none) = (std::os::fd::AsRawFd::as_raw_fd(&fs), std::ptr::null::<u8>());
    // SAFETY: FSCONFIG_CMD_CREATE takes neither a key nor a value.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fs_number, CREATE, none, none, 0) };
    check(libc::c_int::try_from(ret).unwrap_or(-1))?;
    // SAFETY: fsmount(2) takes three integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fs_number, CLOSE_ON_EXEC, 0) })
}

fn owned(ret: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(libc::c_int::try_from(ret).unwrap_or(-1))?;
    // SAFETY: the callers pass the result of a call that makes a descriptor, so nothing owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_made_nowhere_is_seen_by_nobody() {
        let here = std::env::current_dir().unwrap();
        run_in(nowhere().unwrap(), As::Root, || {
            fs::create_dir_all("/run/seclusion")?;
            fs::write("/run/seclusion/file", "")
        })
        .unwrap();
        assert!(!fs::exists("/run/seclusion").unwrap());
        assert_eq!(std::env::current_dir().unwrap(), here);
    }
}
