//! A raw socket: packets of one protocol, with or without their header. See raw(7).
//!
//! What is in its queue is lost, as it is when the queue is full: put back as a packet, every raw
//! socket of the host would get it.

use super::address::{self, Address};
use super::multicast::{self, Membership};
use super::options::{Options, Shape, blocker, shut};
use super::{DescriptionImage, Findings, Ground, Kind, Open, Owner, Place, Seen, SocketSeen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use crate::sys;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub(super) struct Raw;

/// Of raw sockets, and of those that send and receive pings.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    pub(super) domain: i32,
    #[prost(int32, tag = "2")]
    pub(super) protocol: i32,
    /// Empty when it is not bound. The port is the protocol, or the identifier of a ping.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) address: Vec<u8>,
    /// Empty when it is not connected.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) peer: Vec<u8>,
    #[prost(message, required, tag = "5")]
    pub(super) options: Options,
    #[prost(message, repeated, tag = "6")]
    pub(super) joined: Vec<Membership>,
}

impl Kind for Raw {
    const NAME: &'static str = "raw socket";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            matches!(socket.domain, libc::AF_INET | libc::AF_INET6)
                && socket.kind == libc::SOCK_RAW
        })
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        let (Ok(local), Some(socket)) = (of[0].steal(), &of[0].socket) else { return };
        match routes(local.as_fd(), socket, of[0].pid) {
            Some((reason, advice)) => findings.refuse(of[0].object(Self::NAME), reason, advice),
            None => examine_packets(of[0], local.as_fd(), Self::NAME, findings),
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        read(&of[0]).on("read", || of[0].seen.object(Self::NAME))
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        Self::capture(of, tree).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let placed = raw(outline).and_then(|socket| place(socket, outline, at.coming));
        check(outline, placed, Self::NAME, at.owner)
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        described(image)
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        let made = raw(image).and_then(|socket| place(socket, image, at.stage.coming()));
        let made = made.and_then(|socket| complete(socket, image));
        Ok(vec![made.on("make", || at.object(Self::NAME))?])
    }
}

/// What hears of other hosts' packets through the kernel of this one.
fn routes(
    socket: BorrowedFd<'_>,
    seen: &SocketSeen,
    pid: i32,
) -> Option<(&'static str, &'static str)> {
    const IPV6_ROUTER_ALERT: i32 = 22;
    let v6 = seen.domain == libc::AF_INET6;
    // The kernel tells that there is one, not which, and nothing at all of the alert 0 (of MLD).
    let alert = sys::sock::read_number(socket, libc::SOL_IPV6, IPV6_ROUTER_ALERT);
    if v6 && alert.is_ok_and(|on| on != 0) {
        let reason = "gets packets with a router alert, and the kernel does not tell which";
        return Some((reason, "Let the program close it first."));
    }
    let devices = match (v6, seen.protocol) {
        (false, libc::IPPROTO_IGMP) => "ip_mr_vif",
        (true, libc::IPPROTO_ICMPV6) => "ip6_mr_vif",
        _ => return None,
    };
    let list = std::fs::read_to_string(format!("/proc/{pid}/net/{devices}"));
    // The first line has the names of the columns.
    list.is_ok_and(|list| list.lines().nth(1).is_some()).then_some((
        "may be the one through which this host routes multicast",
        "Stop the multicast router; it belongs to its host.",
    ))
}

/// What raw sockets and those for pings have in common.
pub(super) fn examine_packets(
    seen: &Seen,
    local: BorrowedFd<'_>,
    kind: &'static str,
    findings: &mut Findings,
) {
    let shape = seen.socket.as_ref().map(Shape::from);
    if let Some((reason, advice)) = shape.and_then(|shape| blocker(local, shape)) {
        findings.refuse(seen.object(kind), reason, advice);
    } else if sys::fd::poll(local, libc::POLLIN, 0).is_ok_and(|now| now != 0) {
        findings.note(seen.object(kind), "has packets queued, which are lost unless read before");
    }
}

pub(super) fn read(open: &Open<'_>) -> io::Result<Image> {
    let socket = open.seen.socket.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
    let (domain, protocol) = (socket.domain, socket.protocol);
    let options = Options::read(open.local, Shape::from(socket))?;
    let address = sys::sock::local_address(open.local)?;
    let is_raw = socket.kind == libc::SOCK_RAW;
    let is_bound = match Address(&address).ip() {
        Some(ip) if is_raw => !ip.is_unspecified(),
        _ => Address(&address).port() != 0,
    };
    let address = if is_bound { address } else { Vec::new() };
    let peer = peer(open, if is_raw { "raw" } else { "icmp" }, domain)?;
    let joined = multicast::read(open.local, open.seen.pid)?;
    Ok(Image { domain, protocol, address, peer, options, joined })
}

/// getpeername(2) knows no peer whose port is 0, and mostly nobody gives one: the lists of /proc do.
fn peer(open: &Open<'_>, list: &str, domain: i32) -> io::Result<Vec<u8>> {
    if let Some(peer) = sys::sock::peer_address(open.local)? {
        return Ok(peer);
    }
    let six = if domain == libc::AF_INET6 { "6" } else { "" };
    let list = std::fs::read_to_string(format!("/proc/{}/net/{list}{six}", open.seen.pid))?;
    Ok(listed_peer(&list, open.seen.inode).map_or_else(Vec::new, |ip| address::of(ip, 0)))
}

/// For people.
pub(super) fn described(image: &Image) -> String {
    format!("protocol {}, {}", image.protocol, address::ends(&image.address, &image.peer))
}

/// The columns `rem_address`, `st` and `inode` of /proc/net/raw and its like.
pub(super) fn listed_peer(list: &str, inode: u64) -> Option<IpAddr> {
    let mut rows = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.get(9).and_then(|text| text.parse().ok()) == Some(inode))?;
    let is_connected = row[3] == "01";
    hexadecimal(row[2].split_once(':')?.0).filter(|_| is_connected)
}

/// Words in the order of their bytes in memory.
fn hexadecimal(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].map(u32::to_ne_bytes);
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

pub(super) fn check(
    outline: &Image,
    placed: io::Result<OwnedFd>,
    kind: &'static str,
    owner: Owner,
) -> Vec<Refusal> {
    let reason = match placed {
        Err(error) if outline.address.is_empty() => format!("cannot be made here: {error}"),
        Err(error) => format!("cannot be bound to {} here: {error}", Address(&outline.address)),
        Ok(socket) => match multicast::missing_device(socket.as_fd(), &outline.joined) {
            None => return Vec::new(),
            Some(device) => {
                format!("has joined a multicast group on {device}, which is missing here")
            }
        },
    };
    let advice = "Give the destination what it lacks, or let the program close it first.".to_owned();
    vec![Refusal { object: owner.object(kind), reason, advice }]
}

pub(super) fn ip(domain: i32) -> io::Result<()> {
    match domain {
        libc::AF_INET | libc::AF_INET6 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "packets in another domain than IP")),
    }
}

/// It gets packets from its first moment on: those of the moments before it is shut are taken out.
fn raw(image: &Image) -> io::Result<OwnedFd> {
    ip(image.domain)?;
    let shape = Shape { domain: image.domain, kind: libc::SOCK_RAW, protocol: image.protocol };
    let socket = shape.socket()?;
    shut(socket.as_fd())?;
    empty(socket.as_fd());
    image.options.apply(socket.as_fd(), shape)?;
    Ok(socket)
}

fn empty(socket: BorrowedFd<'_>) {
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd as _;
    while recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).is_ok() {}
}

/// At its address and with its peer.
pub(super) fn place(socket: OwnedFd, image: &Image, coming: &[IpAddr]) -> io::Result<OwnedFd> {
    if !image.address.is_empty() {
        bind(socket.as_fd(), image, coming)?;
    }
    if !image.peer.is_empty() {
        address::connect_coming(socket.as_fd(), &image.peer, coming)?;
    }
    Ok(socket)
}

/// A connected socket mostly has the address that the route gave it, and gets another one here.
fn bind(socket: BorrowedFd<'_>, image: &Image, coming: &[IpAddr]) -> io::Result<()> {
    match address::bind_coming(socket, &image.address, coming) {
        Err(error)
            if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && !image.peer.is_empty() =>
        {
            sys::sock::bind(socket, &Address(&image.address).on_any())
        }
        bound => bound,
    }
}

pub(super) fn complete(socket: OwnedFd, image: &Image) -> io::Result<OwnedFd> {
    multicast::join(socket.as_fd(), &image.joined)?;
    image.options.complete(socket.as_fd())?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
