//! A connection whose address is here begins to speak.
//!
//! What is to be done stands in the socket itself (`silence.rs`): whoever made it may be dead.

use super::image::Later;
use super::info::{State, state};
use super::repair::{self, Direction, Window};
use super::segment::Segment;
use super::{capture, silence, timeouts};
use crate::sys;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Shutdown, shutdown};
use prost::Message as _;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

/// It hears, and says how it stands. What is unsent waits for [`speak`].
pub(super) fn begin(socket: BorrowedFd<'_>) -> io::Result<()> {
    // It lives already.
    let Some(kept) = silence::kept(socket)? else { return Ok(()) };
    let later = Later::decode(&*kept.bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    let set = |level, name, value: bool| sys::sock::set_number(socket, level, name, value.into());
    set(libc::SOL_IP, libc::IP_TRANSPARENT, later.transparent)?;
    set(libc::SOL_IP, libc::IP_FREEBIND, later.free_bind)?;
    timeouts::resume(socket, later.timeouts)?;
    if !later.opens_to.is_empty() {
        open(socket, &later)?;
        return silence::end(socket, &kept);
    }
    let last = last_segment(socket)?;
    let old = Segment { sequence: Window::read(socket)?.receive_from.wrapping_sub(1), ..last };
    silence::end(socket, &kept)?;
    repair::end_with_a_probe(socket)?;
    // Leaving the repair has cleared it.
    set(libc::SOL_SOCKET, libc::SO_REUSEADDR, later.shares_address)?;
    match later.peer_finished {
        true => finish(socket, last)?,
        false => tell(socket, old)?,
    }
    match later.answers_the_end && state(socket)?.is_connected() {
        true => Ok(shutdown(socket.as_raw_fd(), Shutdown::Write)?),
        false => Ok(()),
    }
}

/// The probe has an old number, so its peer answers it and does not look at what it acknowledges (RFC 9293,
/// 3.10.7.4). What had come before the freeze, and was not acknowledged, would be said again after 200 ms
/// and all of it: so a question with an old number is asked here, to be answered with a true one there.
fn tell(socket: BorrowedFd<'_>, old: Segment) -> io::Result<()> {
    let Some(flow) = capture::flow_of(socket)? else { return Ok(()) };
    old.ask(&flow)
}

/// Sends what is unsent. Done when every connection hears: one may lead to another of the same tree.
pub(super) fn speak(socket: BorrowedFd<'_>) -> io::Result<()> {
    let number = |name| sys::sock::read_number(socket, libc::SOL_TCP, name);
    // What is held back on purpose goes on being held back.
    if !state(socket)?.is_connected() || number(libc::TCP_CORK)? != 0 {
        return Ok(());
    }
    // To set it is a push, also where it is set.
    let before = number(libc::TCP_NODELAY)?;
    sys::sock::set_number(socket, libc::SOL_TCP, libc::TCP_NODELAY, 1)?;
    match before {
        0 => sys::sock::set_number(socket, libc::SOL_TCP, libc::TCP_NODELAY, 0),
        _ => Ok(()),
    }
}

/// Asks its peer again, with the sequence number that it has asked with before.
fn open(socket: BorrowedFd<'_>, later: &Later) -> io::Result<()> {
    repair::end(socket)?;
    let shares = later.shares_address.into();
    sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, shares)?;
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let connected = sys::sock::connect(socket, &later.opens_to);
    fcntl(socket, FcntlArg::F_SETFL(flags))?;
    match connected {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        connected => connected,
    }
}

/// What the peer said last, with the window that it has given us.
fn last_segment(socket: BorrowedFd<'_>) -> io::Result<Segment> {
    let window = Window::read(socket)?;
    repair::select(socket, Direction::Received)?;
    let sequence = repair::sequence(socket)?;
    repair::select(socket, Direction::Sent)?;
    let unacknowledged = u32::try_from(sys::tcp::unacknowledged_bytes(socket)?).unwrap_or(0);
    let acknowledged = repair::sequence(socket)?.wrapping_sub(unacknowledged);
    let scale = super::info::Info::read(socket)?.send_scale;
    let window = u16::try_from(window.send_bytes >> scale).unwrap_or(u16::MAX);
    Ok(Segment { sequence, acknowledged, window })
}

/// A segment over the loopback device is there when it is sent, unless the network's own thread is
/// busy, or IPv6 does not see yet that the address has come.
const HEARD_MAX: Duration = Duration::from_millis(100);

fn finish(socket: BorrowedFd<'_>, segment: Segment) -> io::Result<()> {
    let closed = || io::Error::new(io::ErrorKind::NotConnected, "it is over");
    let flow = capture::flow_of(socket)?.ok_or_else(closed)?;
    let end = Instant::now() + HEARD_MAX;
    loop {
        segment.finish(&flow)?;
        let now = state(socket)?;
        if now.peer_finished() || matches!(now, State::Close | State::TimeWait) {
            return Ok(());
        }
        if Instant::now() > end {
            let why = "it does not hear that its peer has finished";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
