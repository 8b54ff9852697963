//! Descriptors: making them, and taking duplicates of other processes'.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

pub(crate) fn eventfd(counter: u32, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: eventfd(2) takes two integers and reads no memory.
    let fd = check(unsafe { libc::eventfd(counter, flags | libc::EFD_CLOEXEC) })?;
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
