//! Reading a connection. The source may yet keep it: everything is put back.

use super::image::{Buffers, Image, Later, Live, Opened, Timeouts};
use super::info::{Info, SCALED, SELECTIVE, State, TIMESTAMPS, state};
use super::repair::{self, Agreement, Direction, Window};
use super::{diagnosis, ending, flow, half_open};
use crate::kinds::Open;
use crate::kinds::address::Address;
use crate::kinds::options::Options;
use crate::kinds::tcp_listen::tcp_shape;
use crate::sys;
use nix::sys::stat::fstat;
use std::io;
use std::os::fd::BorrowedFd;

pub(super) fn read(open: &Open<'_>) -> io::Result<Image> {
    let domain = open.seen.socket.as_ref().map_or(0, |socket| socket.domain);
    let live = match is_over(open.local)? {
        true => None,
        false => live(open.local, domain)?,
    };
    match live {
        Some(live) => Ok(Image { domain, live: Some(live), ..Image::default() }),
        None => ending::read(open.local, domain),
    }
}

/// The part that says what the destination must have.
pub(super) fn outline(open: &Open<'_>) -> io::Result<Option<Image>> {
    let domain = open.seen.socket.as_ref().map_or(0, |socket| socket.domain);
    if is_over(open.local)? {
        return Ok(None);
    }
    let live = unopened(open.local, domain)?;
    Ok(live.map(|live| Image { domain, live: Some(live), ..Image::default() }))
}

/// Also one whose peer has said its last word on this same host and was closed. Nobody would be at the
/// other end, and the first segment that we send would be answered with a reset.
fn is_over(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let state = state(socket)?;
    Ok(state == State::Close || state.peer_finished() && is_left_alone(socket)?)
}

fn is_left_alone(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let local = sys::sock::local_address(socket)?;
    let peer = sys::sock::peer_address(socket)?.unwrap_or_default();
    let (local, peer) = (Address(&local), Address(&peer));
    let is_within =
        peer.ip().is_some_and(|ip| ip.to_canonical().is_loopback() || Some(ip) == local.ip());
    Ok(is_within && diagnosis::one(peer, local)?.is_none_or(|other| other.inode == 0))
}

fn live(socket: BorrowedFd<'_>, domain: i32) -> io::Result<Option<Live>> {
    let Some(mut live) = unopened(socket, domain)? else { return Ok(None) };
    let info = Info::read(socket)?;
    live.later.peer_finished = info.state.peer_finished();
    live.later.answers_the_end = info.state == State::LastAck;
    if info.state.is_connected() {
        refuse_urgent(socket)?;
    } else if info.state != State::SynSent {
        return Err(io::Error::other(format!("it is in a state that does not last: {:?}", info.state)));
    }
    repair::begin(socket)?;
    let read = match info.state {
        State::SynSent => repair::select(socket, Direction::Sent)
            .and_then(|()| repair::sequence(socket))
            .map(|next| live.next = next.wrapping_sub(1)),
        _ => opened(socket, &info, &mut live),
    };
    repair::end(socket)?;
    // Turning it off has cleared it.
    let shares_address = live.later.shares_address.into();
    sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, shares_address)?;
    read?;
    Ok(Some(live))
}

/// Everything that is not inside of the connection; `None` when it has just ended.
fn unopened(socket: BorrowedFd<'_>, domain: i32) -> io::Result<Option<Live>> {
    let mut options = Options::read(socket, tcp_shape(domain)?)?;
    let (later, buffers) = (later(&mut options), buffers(socket, &mut options));
    for (level, name) in SAYS_NOTHING {
        options.take(level, name);
    }
    let local = sys::sock::local_address(socket)?;
    let Some(peer) = peer(socket, &local)? else { return Ok(None) };
    let opens_to = match state(socket)? {
        State::SynSent => peer.clone(),
        _ => Vec::new(),
    };
    let later = Later { opens_to, ..later };
    Ok(Some(Live { local, peer, options, buffers, later, next: 0, opened: None }))
}

/// What the peer takes as seen through what fits into a packet now, which is known better; and what an
/// accepted connection has kept of its first packet, and nobody can set; and which processor has heard of
/// it last. To bind to an IPv6 address says that it is for IPv6 alone.
const SAYS_NOTHING: [(i32, i32); 7] = [
    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU),
    (libc::SOL_IPV6, libc::IPV6_V6ONLY),
    (libc::SOL_TCP, libc::TCP_MAXSEG),
    (libc::SOL_IP, libc::IP_MULTICAST_IF),
    (libc::SOL_IP, libc::IP_MULTICAST_TTL),
    (libc::SOL_IPV6, libc::IPV6_MULTICAST_IF),
    (libc::SOL_IPV6, libc::IPV6_MULTICAST_HOPS),
];

/// What may not be in force while the connection is on its way.
fn later(options: &mut Options) -> Later {
    let mut switch = |level, name| {
        options.take(level, name).is_some_and(|value| value.iter().any(|&byte| byte != 0))
    };
    let transparent = switch(libc::SOL_IP, libc::IP_TRANSPARENT);
    let free_bind = switch(libc::SOL_IP, libc::IP_FREEBIND);
    // The same two, under another name.
    switch(libc::SOL_IPV6, libc::IPV6_TRANSPARENT);
    switch(libc::SOL_IPV6, libc::IPV6_FREEBIND);
    let shares_address = switch(libc::SOL_SOCKET, libc::SO_REUSEADDR);
    let asks = switch(libc::SOL_SOCKET, libc::SO_KEEPALIVE);
    let unanswered = number(options.take(libc::SOL_TCP, libc::TCP_USER_TIMEOUT));
    let timeouts = Timeouts { asks, unanswered_ms_max: unanswered.unwrap_or(0).cast_unsigned() };
    Later { transparent, free_bind, shares_address, timeouts, ..Later::default() }
}

/// Linux 5.14.
pub(super) const SO_BUF_LOCK: i32 = 72;

fn buffers(socket: BorrowedFd<'_>, options: &mut Options) -> Buffers {
    options.take(libc::SOL_SOCKET, SO_BUF_LOCK);
    let mut size = |name| number(options.take(libc::SOL_SOCKET, name));
    let (send, receive) = (size(libc::SO_SNDBUF), size(libc::SO_RCVBUF));
    // An older kernel does not say: then the buffers are as good as they are.
    let locked = sys::sock::read_number(socket, libc::SOL_SOCKET, SO_BUF_LOCK).unwrap_or(0);
    Buffers { send, receive, locked }
}

fn number(value: Option<Vec<u8>>) -> Option<i32> {
    value?.try_into().ok().map(i32::from_ne_bytes)
}

/// A byte that was sent as urgent (MSG_OOB) stands beside the stream, and nothing puts it there.
fn refuse_urgent(socket: BorrowedFd<'_>) -> io::Result<()> {
    let readable = sys::fd::readable_bytes(socket)?;
    let is_urgent = sys::sock::is_at_urgent_mark(socket)?
        || readable > 0 && inline(socket, || sys::fd::readable_bytes(socket))? != readable
        || is_one_waiting(socket);
    match is_urgent {
        true => Err(io::Error::other("it has received an urgent byte (MSG_OOB)")),
        false => Ok(()),
    }
}

/// What can be read ends before the urgent byte, unless it is part of the stream.
fn inline<T>(socket: BorrowedFd<'_>, ask: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = sys::sock::read_number(socket, libc::SOL_SOCKET, libc::SO_OOBINLINE)?;
    sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1)?;
    let answer = ask();
    sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_OOBINLINE, before)?;
    answer
}

fn is_one_waiting(socket: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd as _;
    let flags = MsgFlags::MSG_OOB | MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(socket.as_raw_fd(), &mut [0], flags) == Ok(1)
}

fn opened(socket: BorrowedFd<'_>, info: &Info, live: &mut Live) -> io::Result<()> {
    let (we_finished, peer_finished) = (info.state.we_finished(), info.state.peer_finished());
    let window = Window::read(socket)?;
    let agreement = agreement(socket, info)?;

    repair::select(socket, Direction::Received)?;
    let expected = repair::sequence(socket)?.wrapping_sub(peer_finished.into());
    let received = received(socket, live)?;

    repair::select(socket, Direction::Sent)?;
    live.next = repair::sequence(socket)?.wrapping_sub(we_finished.into());
    let mut sent = repair::peek(socket, sys::tcp::unacknowledged_bytes(socket)?)?;
    let end_unsent = u32::from(we_finished && info.unsent_bytes > 0);
    let unsent = info.unsent_bytes.saturating_sub(end_unsent) as usize;
    let unsent = sent.split_off(sent.len().saturating_sub(unsent));

    let clamp = live.options.take(libc::SOL_TCP, libc::TCP_WINDOW_CLAMP);
    let window_bytes_max = number(clamp).unwrap_or(0).cast_unsigned();
    live.opened = Some(Opened {
        agreement,
        window: Window {
            send_from: window.send_from.wrapping_sub(peer_finished.into()),
            receive_from: window.receive_from.wrapping_sub(peer_finished.into()),
            ..window
        },
        expected,
        received,
        sent,
        unsent,
        we_finished: we_finished && !live.later.answers_the_end,
        window_bytes_max,
    });
    Ok(())
}

fn agreement(socket: BorrowedFd<'_>, info: &Info) -> io::Result<Agreement> {
    let number = |name| sys::sock::read_number(socket, libc::SOL_TCP, name).map(i32::cast_unsigned);
    let scales = u32::from(info.receive_scale) << 16 | u32::from(info.send_scale);
    Ok(Agreement {
        // In a repair it is what the peer has said.
        segment_bytes_max: number(libc::TCP_MAXSEG)?,
        scales: (info.options & SCALED != 0).then_some(scales),
        selective: info.options & SELECTIVE != 0,
        clock: match info.options & TIMESTAMPS {
            0 => None,
            _ => Some(number(libc::TCP_TIMESTAMP)?),
        },
    })
}

/// The program may look at its queue from an offset of its own.
fn received(socket: BorrowedFd<'_>, live: &Live) -> io::Result<Vec<u8>> {
    let readable = sys::fd::readable_bytes(socket)?;
    let set_offset =
        |offset| sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset);
    let Some(offset) = number(live.options.value(libc::SOL_SOCKET, libc::SO_PEEK_OFF)) else {
        return repair::peek(socket, readable);
    };
    set_offset(-1)?;
    let peeked = repair::peek(socket, readable);
    set_offset(offset)?;
    peeked
}

/// The connection as its packets show it. One that has ended, or ends while it is looked at, has none.
pub(super) fn flow_of(socket: BorrowedFd<'_>) -> io::Result<Option<crate::network::Flow>> {
    match state(socket)? {
        State::Close | State::Listen => Ok(None),
        _ => flow_between(socket),
    }
}

fn flow_between(socket: BorrowedFd<'_>) -> io::Result<Option<crate::network::Flow>> {
    let local = sys::sock::local_address(socket)?;
    let peer = peer(socket, &local)?;
    peer.map(|peer| flow(&local, &peer)).transpose()
}

/// `None` when there is none any more: until its packets are held, a connection can be opened or end
/// between any two questions.
fn peer(socket: BorrowedFd<'_>, local: &[u8]) -> io::Result<Option<Vec<u8>>> {
    if let Some(peer) = sys::sock::peer_address(socket)? {
        return Ok(Some(peer));
    }
    if let Some(asked) = half_open::peer(local, fstat(socket)?.st_ino)? {
        return Ok(Some(asked));
    }
    match sys::sock::peer_address(socket)? {
        None if state(socket)? != State::Close => Err(io::ErrorKind::NotConnected.into()),
        peer => Ok(peer),
    }
}

#[cfg(test)]
mod tests;
