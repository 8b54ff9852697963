//! Descriptors: making them, comparing them, and taking duplicates of other processes'.

use std::cmp::Ordering;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `ioctl_tfd` (timerfd_create(2)): `_IOW('T', 0, u64)`.
pub(crate) const TFD_IOC_SET_TICKS: u64 = 0x4008_5400;
/// inotify(7): `_IOW('I', 0, i32)`.
const INOTIFY_IOC_SETNEXTWD: u64 = 0x4004_4900;
const KCMP_FILE: libc::c_int = 0;
const KCMP_FILES: libc::c_int = 2;
const KCMP_EPOLL_TFD: libc::c_int = 7;

fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn check_long(ret: libc::c_long) -> io::Result<libc::c_int> {
    check(libc::c_int::try_from(ret).unwrap_or(-1))
}

/// Takes a descriptor that a system call has just returned.
fn owned(ret: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(ret)?;
    // SAFETY: the callers pass the result of a call that makes a descriptor, so nothing owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A duplicate with a number of at least this; close-on-exec.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, least: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer.
    owned(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })
}

pub(crate) fn eventfd(counter: u32, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: eventfd(2) takes two integers and reads no memory.
    owned(unsafe { libc::eventfd(counter, flags | libc::EFD_CLOEXEC) })
}

pub(crate) fn timerfd(clock: i32) -> io::Result<OwnedFd> {
    // SAFETY: timerfd_create(2) takes two integers and reads no memory.
    owned(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC) })
}

/// Also brings the count of expirations up to date, which fdinfo alone does not.
pub(crate) fn timerfd_remaining(fd: BorrowedFd<'_>) -> io::Result<libc::itimerspec> {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut value = libc::itimerspec { it_interval: zero, it_value: zero };
    // SAFETY: `value` is the structure that timerfd_gettime(2) fills.
    check(unsafe { libc::timerfd_gettime(fd.as_raw_fd(), &raw mut value) })?;
    Ok(value)
}

#[cfg(test)]
pub(crate) fn arm_timerfd(
    fd: BorrowedFd<'_>,
    flags: i32,
    value: &libc::itimerspec,
) -> io::Result<()> {
    // SAFETY: `value` is read by the call; no old value is asked for.
    let ret = unsafe { libc::timerfd_settime(fd.as_raw_fd(), flags, value, std::ptr::null_mut()) };
    check(ret).map(drop)
}

/// As if it had rung so often: TFD_IOC_SET_TICKS.
pub(crate) fn set_expirations(timerfd: BorrowedFd<'_>, count: u64) -> io::Result<()> {
    // SAFETY: this ioctl reads one u64, which `count` is.
    let ret = unsafe { libc::ioctl(timerfd.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const count) };
    check(ret).map(drop)
}

pub(crate) fn signalfd(mask: u64) -> io::Result<OwnedFd> {
    // SAFETY: the kernel's mask is these eight bytes; the flags are for a new descriptor.
    let ret = unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8usize, libc::SFD_CLOEXEC)
    };
    owned(check_long(ret)?)
}

pub(crate) fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: epoll_create1(2) takes one integer.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Registers a descriptor, for nothing but errors.
pub(crate) fn add_to_epoll(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let (epoll, add, fd) = (epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd());
    // SAFETY: EPOLL_CTL_ADD reads one `epoll_event`, which `event` is.
    check(unsafe { libc::epoll_ctl(epoll, add, fd, &raw mut event) }).map(drop)
}

pub(crate) fn inotify() -> io::Result<OwnedFd> {
    // SAFETY: inotify_init1(2) takes one integer.
    owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })
}

pub(crate) fn add_watch(inotify: BorrowedFd<'_>, path: &CStr, mask: u32) -> io::Result<i32> {
    // SAFETY: `path` ends in a zero and outlives the call.
    check(unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), mask) })
}

/// The next watch gets this number, or the next free one above it.
pub(crate) fn set_next_watch(inotify: BorrowedFd<'_>, watch: i32) -> io::Result<()> {
    // SAFETY: this ioctl takes the number by value and touches no memory.
    check(unsafe { libc::ioctl(inotify.as_raw_fd(), INOTIFY_IOC_SETNEXTWD, watch) }).map(drop)
}

pub(crate) fn memfd(name: &CStr, flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: `name` ends in a zero and outlives the call.
    owned(unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_CLOEXEC) })
}

/// `flags`: PIDFD_NONBLOCK (O_NONBLOCK), PIDFD_THREAD (O_EXCL, Linux 6.9).
pub(crate) fn pidfd_open(pid: i32, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers.
    owned(check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) })?)
}

/// Our duplicate of a descriptor of another process; always close-on-exec.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_getfd(2) takes three integers.
    owned(check_long(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?)
}

/// A total order of descriptions that lasts as long as both descriptors are open: kcmp(2).
pub(crate) fn compare_files(one: (i32, i32), other: (i32, i32)) -> io::Result<Ordering> {
    // SAFETY: KCMP_FILE takes two pids and two descriptors, all integers.
    let ret = unsafe { libc::syscall(libc::SYS_kcmp, one.0, other.0, KCMP_FILE, one.1, other.1) };
    match check_long(ret)? {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        _ => Ok(Ordering::Greater),
    }
}

/// Whether two tasks use one table of descriptors: kcmp(2).
pub(crate) fn share_table(one: i32, other: i32) -> io::Result<bool> {
    // SAFETY: KCMP_FILES takes two pids; the indexes are ignored.
    let ret = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    Ok(check_long(ret)? == 0)
}

/// One registration in an epoll: the `occurrence`th of those under the number `tfd`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct EpollSlot {
    pub(crate) epoll: u32,
    pub(crate) tfd: u32,
    pub(crate) occurrence: u32,
}

/// Whether a descriptor (pid, fd) is what stands in a slot of an epoll of process `pid`.
pub(crate) fn is_in_slot(file: (i32, i32), pid: i32, slot: EpollSlot) -> io::Result<bool> {
    // SAFETY: KCMP_EPOLL_TFD reads one `kcmp_epoll_slot`, which `slot` is, from our memory.
    let ret = unsafe {
        libc::syscall(libc::SYS_kcmp, file.0, pid, KCMP_EPOLL_TFD, file.1, &raw const slot)
    };
    Ok(check_long(ret)? == 0)
}

/// What poll(2) says of a descriptor now, or within a time: POLL* bits, 0 when nothing happened.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: i16, wait_ms: i32) -> io::Result<i16> {
    let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: `asked` is the one `pollfd` that the count says there is.
    check(unsafe { libc::poll(&raw mut asked, 1, wait_ms) })?;
    Ok(asked.revents)
}

/// Copies up to `bytes` from one pipe to another, leaving them in the first; 0 when it is empty.
pub(crate) fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    // SAFETY: tee(2) takes two descriptors and two integers and touches no memory of ours.
    let copied =
        unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), bytes, libc::SPLICE_F_NONBLOCK) };
    match usize::try_from(copied).map_err(|_| io::Error::last_os_error()) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        copied => copied,
    }
}

/// FIONREAD: bytes that can be read at once.
pub(crate) fn readable_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, and `bytes` is one.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Who gets SIGIO: F_OWNER_* and the id; the id is 0 when nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct SignalOwner {
    pub(crate) kind: i32,
    pub(crate) id: i32,
}

pub(crate) fn signal_owner(fd: BorrowedFd<'_>) -> io::Result<SignalOwner> {
    let mut owner = SignalOwner { kind: 0, id: 0 };
    // SAFETY: F_GETOWN_EX writes one `f_owner_ex`, which `owner` is.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, &raw mut owner) })?;
    Ok(owner)
}

pub(crate) fn set_signal_owner(fd: BorrowedFd<'_>, owner: SignalOwner) -> io::Result<()> {
    // SAFETY: F_SETOWN_EX reads one `f_owner_ex`, which `owner` is.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, &raw const owner) }).map(drop)
}

/// F_GETSIG: the signal sent instead of SIGIO, or 0.
pub(crate) fn owner_signal(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: F_GETSIG takes no argument.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETSIG) })
}

pub(crate) fn set_owner_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: F_SETSIG takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, signal) }).map(drop)
}

/// fcntl(2); not in the C library's headers without _GNU_SOURCE, nor in `libc`.
const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;
const F_SETOWN_EX: libc::c_int = 15;
const F_GETOWN_EX: libc::c_int = 16;

/// flock(2) without waiting: EWOULDBLOCK when somebody else has it.
pub(crate) fn flock(fd: BorrowedFd<'_>, operation: i32) -> io::Result<()> {
    // SAFETY: flock(2) takes two integers.
    check(unsafe { libc::flock(fd.as_raw_fd(), operation | libc::LOCK_NB) }).map(drop)
}

/// TIOCSPTLCK: a new pseudoterminal cannot be opened by its name before, pts(4).
#[cfg(test)]
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> io::Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which `locked` is.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) }).map(drop)
}

/// Room for the handle of any file system: MAX_HANDLE_SZ of open_by_handle_at(2).
const HANDLE_BYTES_MAX: usize = 128;

#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_BYTES_MAX],
}

/// Opens a file by what the file system calls it, as a place (O_PATH). Needs
/// CAP_DAC_READ_SEARCH; ESTALE when the file is gone.
pub(crate) fn open_by_handle(
    mount: BorrowedFd<'_>,
    kind: i32,
    handle: &[u8],
) -> io::Result<OwnedFd> {
    let mut whole = FileHandle { bytes: 0, kind, handle: [0; HANDLE_BYTES_MAX] };
    let room = whole.handle.get_mut(..handle.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(handle);
    whole.bytes = u32::try_from(handle.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `whole` is a `file_handle` whose length field says how many bytes follow.
    let ret = unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const whole, flags)
    };
    owned(check_long(ret)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    fn here(fd: &OwnedFd) -> (i32, i32) {
        (std::process::id().cast_signed(), fd.as_raw_fd())
    }

    #[test]
    fn a_duplicate_is_the_same_file_and_a_second_eventfd_is_not() {
        let one = eventfd(0, 0).unwrap();
        let same = one.try_clone().unwrap();
        let other = eventfd(0, 0).unwrap();
        assert_eq!(compare_files(here(&one), here(&same)).unwrap(), Ordering::Equal);
        let order = compare_files(here(&one), here(&other)).unwrap();
        assert_eq!(compare_files(here(&other), here(&one)).unwrap(), order.reverse());
        assert_ne!(order, Ordering::Equal);
    }

    #[test]
    fn a_stolen_descriptor_is_the_same_file() {
        let one = eventfd(7, 0).unwrap();
        let us = pidfd_open(std::process::id().cast_signed(), 0).unwrap();
        let stolen = pidfd_getfd(us.as_fd(), one.as_raw_fd()).unwrap();
        assert_eq!(compare_files(here(&one), here(&stolen)).unwrap(), Ordering::Equal);
    }
}
