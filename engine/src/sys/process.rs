//! Processes by pidfd, and a first process for a tree.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    let fd = i32::try_from(fd).expect("a descriptor fits an int");
    // SAFETY: the caller just got this number from a system call that makes a descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// pidfd_open(2), Linux 5.3.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers, no memory.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(owned)
}

/// pidfd_getfd(2), Linux 5.6: our own duplicate of another process's descriptor.
pub(crate) fn pidfd_getfd(process: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: three integers, no memory.
    check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) }).map(owned)
}

/// pidfd_send_signal(2), Linux 5.1.
pub(crate) fn pidfd_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let process = process.as_raw_fd();
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means the same as kill(2).
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, signal, none, 0) }).map(drop)
}

/// Whether two processes run in one address space: kcmp(2) with KCMP_VM.
pub(crate) fn shares_memory(one: i32, other: i32) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: five integers, no memory.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0 }
}

pub(crate) fn thread_signal(pid: i32, tid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: three integers, no memory.
    check(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) }).map(drop)
}

/// `struct clone_args`, clone3(2), Linux 5.5.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CloneArguments {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

impl CloneArguments {
    pub(crate) const SET_TID_OFFSET: usize = std::mem::offset_of!(Self, set_tid);

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [
            self.flags,
            self.pidfd,
            self.child_tid,
            self.parent_tid,
            self.exit_signal,
            self.stack,
            self.stack_size,
            self.tls,
            self.set_tid,
            self.set_tid_size,
            self.cgroup,
        ]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
    }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child of ours that only waits to be stopped, with this id if one is asked for; born in this
/// directory of cgroup v2 if there is one (Linux 5.7): to be moved there costs 6 to 56 ms.
///
/// The child is a fork of a program with threads, so it does nothing but system calls.
pub(crate) fn fork_parked(pid: Option<i32>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<i32> {
    let wanted = [pid.unwrap_or(0)];
    let mut arguments =
        CloneArguments { exit_signal: libc::SIGCHLD.cast_unsigned().into(), ..Default::default() };
    if pid.is_some() {
        arguments.set_tid = wanted.as_ptr() as u64;
        arguments.set_tid_size = 1;
    }
    if let Some(cgroup) = cgroup {
        arguments.flags = CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    let size = size_of::<CloneArguments>();
    // SAFETY: no CLONE_VM, so the child has memory of its own; it makes system calls only, which
    // is what a fork of a threaded program may do; `arguments` and `wanted` live throughout.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    if ret == 0 {
        // SAFETY: close_range(2) takes integers. What must be closed when we die is not to stay
        // open in a child that nobody traces yet.
        unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
        loop {
            // SAFETY: pause(2) touches no memory.
            unsafe { libc::syscall(libc::SYS_pause) };
        }
    }
    check(ret).map(|pid| i32::try_from(pid).expect("a process id fits an int"))
}

/// Of this process: membarrier(2), MEMBARRIER_CMD_GET_REGISTRATIONS.
pub(crate) fn barrier_registrations() -> io::Result<libc::c_long> {
    const GET_REGISTRATIONS: libc::c_int = 1 << 9;
    // SAFETY: three integers, no memory.
    check(unsafe { libc::syscall(libc::SYS_membarrier, GET_REGISTRATIONS, 0, 0) })
}

/// Closes the descriptors of a range: close_range(2), Linux 5.9.
///
/// Only in a child that owns nothing: whatever type owns one of them here would close it again.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: three integers, no memory.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Takes a dead child's exit status away, if it is there by now.
pub(crate) fn reap(pid: i32) -> io::Result<bool> {
    let mut status = 0;
    // SAFETY: `status` is the one int that waitpid(2) writes.
    let ret = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::WNOHANG) };
    Ok(check(libc::c_long::from(ret))? != 0)
}

pub(crate) fn memfd(name: &std::ffi::CStr, flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a string with its final zero.
    check(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) }).map(owned)
}
