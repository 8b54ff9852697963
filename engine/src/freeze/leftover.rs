//! What a stop leaves behind in a program's socket, and would be the program's next error.
//!
//! A recvmmsg(2) that is stopped when it has taken a message returns how many, and keeps the reason for
//! which it took no more as the error of the socket: ERESTARTSYS, which no program knows.

use super::Frozen;
use crate::arch::x86_64::interrupted;
use crate::sys;
use std::io;
use std::os::fd::AsFd as _;

/// Takes it away. An error of the network that came in the same moment goes with it.
pub(super) fn clear(tree: &[Frozen]) {
    for thread in tree.iter().flat_map(|frozen| &frozen.threads) {
        let Ok(registers) = thread.registers() else { continue };
        let Some(fd) = interrupted::received_some(&registers) else { continue };
        if let Err(error) = clear_one(thread.pid(), fd) {
            tracing::debug!(pid = thread.pid(), fd, %error, "the error of a socket is left");
        }
    }
}

fn clear_one(pid: i32, fd: i32) -> io::Result<()> {
    let process = sys::fd::pidfd_open(pid, 0)?;
    let socket = sys::fd::pidfd_getfd(process.as_fd(), fd)?;
    sys::sock::read_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).map(drop)
}
