//! A UDP socket, bound, connected or neither, with the datagrams in its queue.
//!
//! Its error queue is lost, as the ICMP messages in it may be lost anywhere, and so are the times
//! at which datagrams were sent (SO_TIMESTAMPING). What comes while it moves is lost as well.

use super::address::{self, Address};
use super::datagrams::{self, Datagram};
use super::multicast::{self, Membership};
use super::options::{Options, Shape, blocker, shut};
use super::{
    DescriptionImage, Findings, Ground, Kind, Open, Place, Rules, Seen, Tree, Wait, sole,
};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use crate::sys;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub(super) struct Udp;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    domain: i32,
    /// Empty when it is not bound.
    #[prost(bytes = "vec", tag = "2")]
    address: Vec<u8>,
    /// Empty when it is not connected.
    #[prost(bytes = "vec", tag = "3")]
    peer: Vec<u8>,
    #[prost(message, required, tag = "4")]
    options: Options,
    #[prost(message, repeated, tag = "5")]
    queued: Vec<Datagram>,
    #[prost(message, repeated, tag = "6")]
    joined: Vec<Membership>,
}

impl Kind for Udp {
    const NAME: &'static str = "UDP socket";
    const IS_WAITED_FOR: bool = true;
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            matches!(socket.domain, libc::AF_INET | libc::AF_INET6)
                && (socket.kind, socket.protocol) == (libc::SOCK_DGRAM, libc::IPPROTO_UDP)
        })
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        let (seen, object) = (of[0], of[0].object(Self::NAME));
        let Ok(local) = seen.steal() else { return };
        let shape = seen.socket.as_ref().map(Shape::from);
        if let Some((reason, advice)) = shape.and_then(|shape| blocker(local.as_fd(), shape)) {
            findings.refuse(object, reason, advice);
        } else if is_corked(local.as_fd(), domain(seen)) {
            findings.note(object, format!("{CORKED}; the move waits for it"));
        } else if sys::fd::poll(local.as_fd(), 0, 0).is_ok_and(|now| now & libc::POLLERR != 0) {
            findings.note(object, "has errors queued, which are lost unless read before");
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let queued = queued(&of[0]).on("read", || of[0].seen.object(Self::NAME))?;
        let image = read(&of[0]).on("read", || of[0].seen.object(Self::NAME))?;
        Ok(Image { queued, ..image })
    }

    fn outline(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Option<Image>, Error> {
        read(&of[0]).on("read", || of[0].seen.object(Self::NAME)).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let (reason, advice) = match place(outline, at.coming) {
            Err(error) if outline.address.is_empty() => (
                format!("cannot be made here: {error}"),
                "Give the destination what it lacks, or let the program close it first.".to_owned(),
            ),
            Err(error) => (
                format!("cannot be bound to {} here: {error}", Address(&outline.address)),
                "Give the destination that address, and stop what uses the port.".to_owned(),
            ),
            Ok(socket) => match multicast::missing_device(socket.as_fd(), &outline.joined) {
                None => return Vec::new(),
                Some(device) => (
                    format!("has joined a multicast group on {device}, which is missing here"),
                    "Give the destination a device of that name.".to_owned(),
                ),
            },
        };
        vec![Refusal { object: at.object(Self::NAME), reason, advice }]
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        address::ends(&image.address, &image.peer)
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![make(image, at.stage.coming()).on("make", || at.object(Self::NAME))?])
    }

    fn waiting(open: &Open<'_>, _rules: &Rules) -> Result<Option<Wait>, Error> {
        let is_corked = is_corked(open.local, domain(open.seen));
        Ok(is_corked.then(|| Wait { why: format!("it {CORKED}"), is_vital: true }))
    }
}

const CORKED: &str = "has a datagram that is not complete yet (UDP_CORK, MSG_MORE)";

fn domain(seen: &Seen) -> i32 {
    seen.socket.as_ref().map_or(0, |socket| socket.domain)
}

fn shape(domain: i32) -> io::Result<Shape> {
    if !matches!(domain, libc::AF_INET | libc::AF_INET6) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "UDP in another domain than IP"));
    }
    Ok(Shape { domain, kind: libc::SOCK_DGRAM, protocol: libc::IPPROTO_UDP })
}

/// MSG_PROBE: the way is looked up, and nothing is sent.
const MSG_PROBE: i32 = 0x10;

/// Nothing tells of a datagram in the making, but that one more part of it needs no address, and
/// the first one a port: nothing at all, added to it by a probe, changes nothing. A socket that is
/// not bound has none, and would be bound by the probe.
fn is_corked(socket: BorrowedFd<'_>, domain: i32) -> bool {
    if sys::sock::local_address(socket).is_ok_and(|address| Address(&address).port() == 0) {
        return false;
    }
    let nowhere = match domain {
        libc::AF_INET6 => address::v6(Ipv6Addr::LOCALHOST, 0),
        _ => address::v4(Ipv4Addr::LOCALHOST, 0),
    };
    sys::datagram::send_to(socket, &[], MSG_PROBE | libc::MSG_MORE, &nowhere).is_ok()
}

fn queued(open: &Open<'_>) -> io::Result<Vec<Datagram>> {
    match is_corked(open.local, domain(open.seen)) {
        true => Err(io::Error::new(io::ErrorKind::ResourceBusy, CORKED)),
        false => datagrams::read(open.local, domain(open.seen)),
    }
}

/// All but the queue.
fn read(open: &Open<'_>) -> io::Result<Image> {
    let domain = domain(open.seen);
    let mut options = Options::read(open.local, shape(domain)?)?;
    // Which processor has heard of it last.
    options.take(libc::SOL_SOCKET, libc::SO_INCOMING_CPU);
    let address = sys::sock::local_address(open.local)?;
    let is_bound = Address(&address).port() != 0;
    let address = if is_bound { address } else { Vec::new() };
    let peer = sys::sock::peer_address(open.local)?.unwrap_or_default();
    let joined = multicast::read(open.local, open.seen.pid)?;
    Ok(Image { domain, address, peer, options, joined, queued: Vec::new() })
}

fn make(image: &Image, coming: &[IpAddr]) -> io::Result<OwnedFd> {
    let socket = place(image, coming)?;
    multicast::join(socket.as_fd(), &image.joined)?;
    image.options.complete(socket.as_fd())?;
    Ok(socket)
}

/// With its queue, at its address, and with its peer; nothing comes in before it is complete.
fn place(image: &Image, coming: &[IpAddr]) -> io::Result<OwnedFd> {
    let shape = shape(image.domain)?;
    let socket = shape.socket()?;
    if !image.queued.is_empty() {
        refill(&socket, image);
    }
    shut(socket.as_fd())?;
    image.options.apply(socket.as_fd(), shape)?;
    if !image.address.is_empty() {
        bind(&socket, image, coming)?;
    }
    if !image.peer.is_empty() {
        address::connect_coming(socket.as_fd(), &image.peer, coming)?;
    }
    Ok(socket)
}

/// That datagrams are lost is in the nature of them, and no reason to fail.
fn refill(socket: &OwnedFd, image: &Image) {
    let tells = image.options.has(libc::SOL_IPV6, libc::IPV6_RECVPKTINFO);
    let count = image.queued.len();
    match datagrams::fill(socket, &image.queued, tells) {
        Ok(0) => {}
        Ok(lost) => tracing::warn!(lost, count, "datagrams in a queue could not be brought back"),
        Err(error) => tracing::warn!(count, %error, "a queue of datagrams is lost"),
    }
}

/// A connected socket mostly has the address that the route gave it. On another host the route
/// gives another one, so only the port is kept.
fn bind(socket: &OwnedFd, image: &Image, coming: &[IpAddr]) -> io::Result<()> {
    match address::bind_coming(socket.as_fd(), &image.address, coming) {
        Err(error)
            if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && !image.peer.is_empty() =>
        {
            sys::sock::bind(socket.as_fd(), &Address(&image.address).on_any())
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests;
