//! What the holder needs of the kernel: processes by pidfd, and descriptors sent over a socket.

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, accept4, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// The longest message; longer ones are not made.
const MESSAGE_BYTES_MAX: usize = 512;

/// pidfd_open(2). ESRCH when there is no such process.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers and reads no memory.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// pidfd_getfd(2): a duplicate of a descriptor of another process, close-on-exec.
#[cfg(test)]
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_getfd(2) takes three integers and reads no memory.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
}

/// pidfd_send_signal(2) with SIGKILL: cannot hit another process that got the same number since.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    let (pidfd, signal) = (pidfd.as_raw_fd(), libc::SIGKILL);
    // SAFETY: a null siginfo is allowed; the other arguments are integers.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, none, 0) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// SIGTERM, SIGINT and SIGHUP do nothing from now on. Whoever stops a service by its group would
/// else end the process that keeps a tree from reading zeros.
pub(crate) fn ignore_polite_signals() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: ignoring a signal installs no code of ours.
        unsafe { signal(which, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// A caller at a listening socket, close-on-exec. WouldBlock when there is none.
pub(crate) fn accept(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd = accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One message, with a descriptor or without. EPIPE when nobody will read it.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let fds: Vec<i32> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &control[..0] } else { &control[..] };
    let text = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &text, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// One message; `None` at the end of the conversation, WouldBlock when there is nothing now and
/// `wait` is false (or a receive timeout of the socket has passed).
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    wait: bool,
) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut room = [IoSliceMut::new(&mut bytes)];
    let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut room, Some(&mut control), flags)?;
    let fd = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let length = message.bytes;
    // SAFETY: the kernel just made this descriptor for us, so nothing else owns it.
    let fd = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    if length == 0 && fd.is_none() {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some((bytes, fd)))
}

fn owned(ret: libc::c_long) -> io::Result<OwnedFd> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(ret).expect("a descriptor is an int");
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
