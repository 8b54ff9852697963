//! What a TCP socket tells as a number of its own: the ioctls of tcp(7).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// SIOCOUTQ: what was written and the peer has not acknowledged, sent or not; the end of the stream
/// counts as a byte.
pub(crate) fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one int, and `bytes` is one.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}
