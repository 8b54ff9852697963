//! Making a connection again, while its address may still be on the other host.
//!
//! It is built in TCP_REPAIR and stays there until it goes live: should we die, it ends without a
//! word. It hears nothing, and what is to be done later stands in the socket itself, so whoever comes
//! after us needs to know nothing.

use super::capture::SO_BUF_LOCK;
use super::image::{Buffers, Live, Opened};
use super::repair::{self, Direction, Window};
use super::silence;
use crate::error::{Error, Object, OnObject as _};
use crate::kinds::Place;
use crate::kinds::address::Address;
use crate::kinds::tcp_listen::tcp_shape;
use crate::sys;
use nix::sys::socket::{Shutdown, shutdown};
use prost::Message as _;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

pub(super) const NAME: &str = "TCP connection";

pub(super) fn build(live: &Live, domain: i32, at: &Place<'_>) -> Result<OwnedFd, Error> {
    let object = || at.object(NAME);
    let socket = bound(live, domain, at.stage.coming())?;
    match &live.opened {
        Some(opened) => {
            connect(socket.as_fd(), live, opened).on("connect", object)?;
            fill(socket.as_fd(), opened).on("fill", object)?;
            window(opened).set(socket.as_fd()).on("set the window of", object)?;
            bound_by(socket.as_fd(), live, opened).on("bound", object)?;
        }
        // What it asks with again.
        None => number_from(socket.as_fd(), live.next).on("number", object)?,
    }
    live.options.complete(socket.as_fd()).on("attach the packet filter of", object)?;
    silence::begin(socket.as_fd(), &live.later.encode_to_vec()).on("silence", object)?;
    Ok(socket)
}

/// Only addresses that are here, or that come with the tree: nobody speaks for others.
pub(super) fn bound(live: &Live, domain: i32, coming: &[IpAddr]) -> Result<OwnedFd, Error> {
    let object = || object(live);
    let socket = socket(live, domain).on("make", object)?;
    let local = socket.as_fd();
    let comes = Address(&live.local).ip().is_some_and(|ip| coming.contains(&ip.to_canonical()));
    if comes {
        set(local, libc::SOL_IP, libc::IP_TRANSPARENT, 1).on("let come", object)?;
    }
    sys::sock::bind(local, &live.local).on("bind", object)?;
    Ok(socket)
}

/// For whoever knows only what it was.
pub(super) fn object(live: &Live) -> Object {
    let (local, peer) = (Address(&live.local), Address(&live.peer));
    Object::Image { part: format!("TCP connection from {local} to {peer}") }
}

/// Options that could give it an address which is not its own are none of those that are set here.
fn socket(live: &Live, domain: i32) -> io::Result<OwnedFd> {
    let mut options = live.options.clone();
    for (level, name) in [
        (libc::SOL_IP, libc::IP_TRANSPARENT),
        (libc::SOL_IP, libc::IP_FREEBIND),
        (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
        (libc::SOL_IPV6, libc::IPV6_FREEBIND),
        (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    ] {
        options.take(level, name);
    }
    let socket = options.socket(tcp_shape(domain)?)?;
    // Ports that others wait at or have left are no obstacle in a repair: SO_REUSEADDR would be a
    // weaker word for it.
    repair::begin(socket.as_fd())?;
    resize(socket.as_fd(), &live.buffers)?;
    Ok(socket)
}

fn set(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    sys::sock::set_number(socket, level, name, value)
}

pub(super) fn connect(
    socket: BorrowedFd<'_>,
    live: &Live,
    opened: &Opened,
) -> io::Result<()> {
    let written = opened.sent.len() + opened.unsent.len();
    let first = |end: u32, bytes: usize| end.wrapping_sub(u32::try_from(bytes).unwrap_or(0));
    number_from(socket, first(live.next, written))?;
    repair::select(socket, Direction::Received)?;
    repair::set_sequence(socket, first(opened.expected, opened.received.len()))?;
    // No packet: it is connected when the call returns.
    sys::sock::connect(socket, &live.peer)?;
    opened.agreement.set(socket)
}

fn number_from(socket: BorrowedFd<'_>, first: u32) -> io::Result<()> {
    repair::select(socket, Direction::Sent)?;
    repair::set_sequence(socket, first)
}

fn fill(socket: BorrowedFd<'_>, opened: &Opened) -> io::Result<()> {
    make_room(socket, opened)?;
    repair::select(socket, Direction::Received)?;
    repair::fill(socket, &opened.received)?;
    repair::select(socket, Direction::Sent)?;
    repair::fill(socket, &opened.sent)?;
    if opened.we_finished || !opened.unsent.is_empty() {
        write_unsent(socket, opened)?;
    }
    Ok(())
}

fn window(opened: &Opened) -> Window {
    opened.window.within(opened.expected)
}

fn bound_by(socket: BorrowedFd<'_>, live: &Live, opened: &Opened) -> io::Result<()> {
    let clamp = i32::try_from(opened.window_bytes_max).unwrap_or(i32::MAX);
    if clamp != 0 {
        set(socket, libc::SOL_TCP, libc::TCP_WINDOW_CLAMP, clamp)?;
    }
    resize(socket, &live.buffers)
}

/// What is written in a repair counts as sent. So it is left for a moment, in which the peer takes
/// nothing: then nothing is sent.
fn write_unsent(socket: BorrowedFd<'_>, opened: &Opened) -> io::Result<()> {
    window(opened).shut().set(socket)?;
    repair::end(socket)?;
    without_bound(socket, || repair::fill(socket, &opened.unsent))?;
    if opened.we_finished {
        shutdown(socket.as_raw_fd(), Shutdown::Write)?;
    }
    repair::begin(socket)
}

/// TCP_NOTSENT_LOWAT ends a write early where so much is unsent, and the program has written more.
fn without_bound(
    socket: BorrowedFd<'_>,
    write: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let name = libc::TCP_NOTSENT_LOWAT;
    let before = sys::sock::read_number(socket, libc::SOL_TCP, name)?;
    set(socket, libc::SOL_TCP, name, -1)?;
    write()?;
    set(socket, libc::SOL_TCP, name, before)
}

/// The queues were built up under other conditions, and may need more here than they had.
fn make_room(socket: BorrowedFd<'_>, opened: &Opened) -> io::Result<()> {
    let written = opened.sent.len() + opened.unsent.len();
    for (bytes, size, forced) in [
        (written, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE),
        (opened.received.len(), libc::SO_RCVBUF, libc::SO_RCVBUFFORCE),
    ] {
        // The kernel doubles what it is told.
        let need = i32::try_from(bytes + (1 << 16)).unwrap_or(i32::MAX / 2);
        if bytes > 0 && sys::sock::read_number(socket, libc::SOL_SOCKET, size)? < need * 2 {
            set(socket, libc::SOL_SOCKET, forced, need)?;
        }
    }
    Ok(())
}

/// To set a size locks it; which were locked is said last.
fn resize(socket: BorrowedFd<'_>, buffers: &Buffers) -> io::Result<()> {
    for (bytes, forced) in
        [(buffers.send, libc::SO_SNDBUFFORCE), (buffers.receive, libc::SO_RCVBUFFORCE)]
    {
        if let Some(bytes) = bytes {
            set(socket, libc::SOL_SOCKET, forced, bytes / 2)?;
        }
    }
    match set(socket, libc::SOL_SOCKET, SO_BUF_LOCK, buffers.locked) {
        // Before Linux 5.14 they stay locked.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        set => set,
    }
}
