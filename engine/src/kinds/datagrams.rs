//! The datagrams in the queue of a UDP socket: read without taking them, and put into another.
//!
//! They are put back as packets: a raw socket may give a packet any header (IP_HDRINCL, raw(7)),
//! and its way is found by the address that sendto(2) is told, not by the one in the header. With
//! ours told, on `lo`, it never leaves the host, from whomever and to whomever it says it is, and
//! whether or not that address is here. Meanwhile the receiver is bound to a port of the kernel's choice, on
//! `lo` alone, so that nobody else's packets, and no other socket, come in between.
//!
//! A datagram keeps its content, its sender, the address it was sent to, its TTL and its TOS. It
//! loses the interface and the time at which it came, and its port where IP_RECVORIGDSTADDR asks.

use super::address::{self, Address, disconnect};
use crate::network::packet::Sender;
use crate::sys;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

mod packet;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Datagram {
    /// `sockaddr` of its sender.
    #[prost(bytes = "vec", tag = "1")]
    sender: Vec<u8>,
    /// The address that it was sent to: 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    to: Vec<u8>,
    #[prost(uint32, tag = "3")]
    ttl: u32,
    #[prost(uint32, tag = "4")]
    tos: u32,
    #[prost(bytes = "vec", tag = "5")]
    content: Vec<u8>,
}

#[cfg(test)]
impl Datagram {
    pub(super) fn sample(sender: Vec<u8>, to: Vec<u8>) -> Self {
        Self { sender, to, ttl: 33, tos: 0x20, content: b"odd".to_vec() }
    }
}

/// What is behind that is lost: a receiver that is so far behind loses datagrams anyway.
const QUEUED_BYTES_MAX: usize = 16 << 20;
/// Of one datagram, or of several that UDP_GRO made one.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// What makes the kernel tell the address, TTL and TOS of a datagram beside it. A socket of IPv6
/// has datagrams of IPv4 too.
const TOLD_V4: &[(i32, i32)] = &[
    (libc::SOL_IP, libc::IP_PKTINFO),
    (libc::SOL_IP, libc::IP_RECVTTL),
    (libc::SOL_IP, libc::IP_RECVTOS),
];
const TOLD_V6: &[(i32, i32)] = &[
    (libc::SOL_IPV6, libc::IPV6_RECVPKTINFO),
    (libc::SOL_IPV6, libc::IPV6_RECVHOPLIMIT),
    (libc::SOL_IPV6, libc::IPV6_RECVTCLASS),
];

/// The queue in its order. A pending error (ICMP said that nobody listens) is taken by the look.
pub(super) fn read(socket: BorrowedFd<'_>, domain: i32) -> io::Result<Vec<Datagram>> {
    if sys::fd::poll(socket, libc::POLLIN, 0)? & libc::POLLIN == 0 {
        return Ok(Vec::new());
    }
    let v6 = if domain == libc::AF_INET6 { TOLD_V6 } else { &[] };
    let switches = TOLD_V4.iter().chain(v6).map(|&(level, name)| (level, name, 1));
    let switches: Vec<_> = switches.chain([(libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)]).collect();
    with(socket, &switches, || walk(socket))
}

/// Does it with other values of some options, which are put back whatever happens.
fn with<T>(
    socket: BorrowedFd<'_>,
    options: &[(i32, i32, i32)],
    act: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some((&(level, name, value), rest)) = options.split_first() else { return act() };
    let before = sys::sock::read_number(socket, level, name)?;
    sys::sock::set_number(socket, level, name, value)?;
    let done = with(socket, rest, act);
    sys::sock::set_number(socket, level, name, before)?;
    done
}

/// An empty datagram at the head of the queue is seen once only: the kernel marks it as peeked at.
/// A second try of a move finds the queue without it.
fn walk(socket: BorrowedFd<'_>) -> io::Result<Vec<Datagram>> {
    let mut room = vec![0; DATAGRAM_BYTES_MAX];
    let (mut queue, mut total, mut errors) = (Vec::new(), 0, 0);
    while total < QUEUED_BYTES_MAX {
        match sys::datagram::peek(socket, &mut room) {
            Ok(peeked) => {
                let content = room.get(..peeked.length).ok_or(io::ErrorKind::FileTooLarge)?;
                total += content.len();
                queue.extend(split(&peeked, content));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) if errors < PENDING_ERRORS_MAX => errors += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(queue)
}

/// A hard and a soft error can be pending.
const PENDING_ERRORS_MAX: usize = 2;

/// Datagrams that the kernel joined for UDP_GRO are taken apart, as for a program without it.
fn split(peeked: &sys::datagram::Peeked, content: &[u8]) -> Vec<Datagram> {
    let number = |level, kind| {
        let bytes = peeked.beside(level, kind)?;
        Some(bytes.iter().rev().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)))
    };
    let v4 = peeked.beside(libc::SOL_IP, libc::IP_PKTINFO).and_then(|told| told.get(8..12));
    let v6 = peeked.beside(libc::SOL_IPV6, libc::IPV6_PKTINFO).and_then(|told| told.get(..16));
    let ttl = number(libc::SOL_IP, libc::IP_TTL);
    let tos = number(libc::SOL_IP, libc::IP_TOS);
    let one = |content: &[u8]| Datagram {
        sender: peeked.sender.clone(),
        to: v6.or(v4).unwrap_or_default().to_vec(),
        ttl: ttl.or_else(|| number(libc::SOL_IPV6, libc::IPV6_HOPLIMIT)).unwrap_or(64),
        tos: tos.or_else(|| number(libc::SOL_IPV6, libc::IPV6_TCLASS)).unwrap_or(0),
        content: content.to_vec(),
    };
    match number(libc::SOL_UDP, libc::UDP_GRO) {
        Some(each @ 1..) => content.chunks(each as usize).map(one).collect(),
        _ => vec![one(content)],
    }
}

/// Fills the queue of a new socket that nothing was done to yet, and leaves it unbound. Returns how
/// many datagrams could not be put back. `tells` says whether the program is told the address that
/// a datagram was sent to.
pub(super) fn fill(socket: &OwnedFd, queue: &[Datagram], tells: bool) -> io::Result<usize> {
    let fd = socket.as_fd();
    let domain = sys::sock::read_number(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    let mut switches = Vec::new();
    let any = if domain == libc::AF_INET6 {
        switches.push((libc::SOL_IPV6, libc::IPV6_V6ONLY, 0));
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    with(fd, &switches, || {
        roomy(fd, || {
            sys::sock::set_option(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo")?;
            sys::sock::bind(fd, &address::of(any, 0))?;
            let port = Address(&sys::sock::local_address(fd)?).port();
            let lost = send(queue, port, tells);
            // Also takes it off the device, and frees the port.
            disconnect(fd)?;
            Ok(lost)
        })
    })
}

/// With room for the whole queue.
fn roomy<T>(socket: BorrowedFd<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let doubled = sys::sock::read_number(socket, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
    let size = |bytes| sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes);
    // A small datagram counts more than its bytes.
    size(i32::MAX / 4)?;
    let done = act();
    size(doubled / 2)?;
    done
}

/// How many could not be sent.
fn send(queue: &[Datagram], port: u16, tells: bool) -> usize {
    let mut ways = Ways::default();
    let sent = |one: &&Datagram| {
        let packet = packet::of(one, port, tells);
        packet.is_some_and(|(bytes, to)| ways.send(&bytes, to).is_ok())
    };
    queue.len() - queue.iter().filter(sent).count()
}

/// Both versions' ways into this host, opened when one is needed.
#[derive(Default)]
struct Ways {
    v4: Option<Sender>,
    v6: Option<Sender>,
}

impl Ways {
    fn send(&mut self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let (way, here) = match to {
            IpAddr::V6(_) => (&mut self.v6, IpAddr::from(Ipv6Addr::LOCALHOST)),
            IpAddr::V4(_) => (&mut self.v4, Ipv4Addr::LOCALHOST.into()),
        };
        let sender = match way {
            Some(sender) => sender,
            // Also where a firewall's rules rewrite what is sent.
            None => way.insert(Sender::open(here)?.on("lo")?),
        };
        sender.send(packet, here)
    }
}
