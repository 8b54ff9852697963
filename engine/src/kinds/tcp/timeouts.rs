//! What ends a connection by itself when nobody answers: it must not, while nobody can.

use super::image::Timeouts;
use crate::sys;
use std::io;
use std::os::fd::BorrowedFd;

const NONE: Timeouts = Timeouts { asks: false, unanswered_ms_max: 0 };

pub(super) fn read(socket: BorrowedFd<'_>) -> io::Result<Timeouts> {
    let unanswered = sys::sock::read_number(socket, libc::SOL_TCP, libc::TCP_USER_TIMEOUT)?;
    let asks = sys::sock::read_number(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE)? != 0;
    Ok(Timeouts { asks, unanswered_ms_max: unanswered.cast_unsigned() })
}

pub(super) fn suspend(socket: BorrowedFd<'_>) -> io::Result<()> {
    resume(socket, NONE)
}

pub(super) fn resume(socket: BorrowedFd<'_>, timeouts: Timeouts) -> io::Result<()> {
    let unanswered = timeouts.unanswered_ms_max.cast_signed();
    sys::sock::set_number(socket, libc::SOL_TCP, libc::TCP_USER_TIMEOUT, unanswered)?;
    sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, timeouts.asks.into())
}
