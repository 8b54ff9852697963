//! A userfaultfd that only watches writes: asynchronous write protection (Linux 6.7).
//!
//! No fault is ever delivered: the kernel lets the write through and drops the page's mark, and
//! PAGEMAP_SCAN finds the pages without one. So the descriptor needs no reader, and works on the
//! memory of the process that created it, whoever holds it.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

const UFFD_API: u64 = 0xaa;
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const FEATURE_WP_ASYNC: u64 = 1 << 15;
const REGISTER_MODE_WP: u64 = 1 << 1;

const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_aa01;
const UFFDIO_WRITEPROTECT: libc::c_ulong = 0xc018_aa06;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Protect {
    range: Range,
    mode: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

/// The flags to create it with. Kernel-mode writes are seen without kernel-mode faults, and an
/// unprivileged process may always create this kind.
pub(crate) const CREATE_FLAGS: i32 = UFFD_USER_MODE_ONLY | libc::O_CLOEXEC;

/// Of our own memory.
pub(crate) fn create() -> io::Result<OwnedFd> {
    // SAFETY: userfaultfd(2) takes one integer and reads no memory.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, CREATE_FLAGS) };
    let fd = i32::try_from(fd).expect("a descriptor");
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Must come first, once.
pub(crate) fn agree_on_asynchronous_protection(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut api = Api { api: UFFD_API, features: FEATURE_WP_ASYNC, ioctls: 0 };
    // SAFETY: UFFDIO_API reads and writes one `uffdio_api`, which `api` is.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, &raw mut api) })
}

/// Every mapping in the range, whole or in part; ENOMEM and ESRCH when the memory is gone.
pub(crate) fn register(fd: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let range = Range { start, len: end - start };
    let mut register = Register { range, mode: REGISTER_MODE_WP, ioctls: 0 };
    // SAFETY: UFFDIO_REGISTER reads and writes one `uffdio_register`, which `register` is; it
    // changes how the other process's memory is watched, never what is in it.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) })
}

pub(crate) fn unregister(fd: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let mut range = Range { start, len: end - start };
    // SAFETY: UFFDIO_UNREGISTER reads one `uffdio_range`, which `range` is.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_UNREGISTER, &raw mut range) })
}

/// Whether the memory that it watches is no more. Only for a page that is not registered: to one that is,
/// this is a word.
pub(crate) fn is_memory_gone(fd: BorrowedFd<'_>, page: u64) -> bool {
    let mut protect = Protect { range: Range { start: page, len: 4096 }, mode: 0 };
    // SAFETY: UFFDIO_WRITEPROTECT reads one `uffdio_writeprotect`, which `protect` is. Of a page that is not
    // registered it says ENOENT, and does nothing.
    let asked =
        check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_WRITEPROTECT, &raw mut protect) });
    asked.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}

fn check(ret: libc::c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
