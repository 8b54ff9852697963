//! A UDP socket, bound, connected or neither.
//!
//! Datagrams that are queued are lost, as UDP may lose them anywhere; a note says so.

use super::address::Address;
use super::options::{Options, Shape, has_filter};
use super::{DescriptionImage, Findings, Kind, Open, Owner, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use crate::sys;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

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
}

impl Kind for Udp {
    const NAME: &'static str = "UDP socket";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            matches!(socket.domain, libc::AF_INET | libc::AF_INET6)
                && (socket.kind, socket.protocol) == (libc::SOCK_DGRAM, libc::IPPROTO_UDP)
        })
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        let object = of[0].object(Self::NAME);
        let Ok(local) = of[0].steal() else { return };
        if has_filter(local.as_fd()) {
            let reason = "has a packet filter, which cannot be moved";
            findings.refuse(object, reason, "Let the program detach it.");
        } else if sys::fd::readable_bytes(local.as_fd()).is_ok_and(|bytes| bytes > 0) {
            findings.note(object, "has datagrams queued, which are lost unless read before");
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        read(&of[0]).on("read", || of[0].seen.object(Self::NAME))
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        Self::capture(of, tree).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], owner: Owner) -> Vec<Refusal> {
        let Err(error) = make(outline) else { return Vec::new() };
        vec![Refusal {
            object: owner.object(Self::NAME),
            reason: format!("cannot be bound to {} here: {error}", Address(&outline.address)),
            advice: "Give the destination that address, and stop what uses the port.".to_owned(),
        }]
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![make(image).on("make", || at.object(Self::NAME))?])
    }
}

fn shape(domain: i32) -> io::Result<Shape> {
    if !matches!(domain, libc::AF_INET | libc::AF_INET6) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "UDP in another domain than IP"));
    }
    Ok(Shape { domain, kind: libc::SOCK_DGRAM, protocol: libc::IPPROTO_UDP })
}

fn read(open: &Open<'_>) -> io::Result<Image> {
    let domain = open.seen.socket.as_ref().map_or(0, |socket| socket.domain);
    let options = Options::read(open.local, shape(domain)?)?;
    let address = sys::sock::local_address(open.local)?;
    let is_bound = Address(&address).port() != 0;
    let peer = sys::sock::peer_address(open.local)?.unwrap_or_default();
    Ok(Image { domain, address: if is_bound { address } else { Vec::new() }, peer, options })
}

fn make(image: &Image) -> io::Result<OwnedFd> {
    let socket = image.options.socket(shape(image.domain)?)?;
    if !image.address.is_empty() {
        bind(&socket, image)?;
    }
    if !image.peer.is_empty() {
        sys::sock::connect(socket.as_fd(), &image.peer)?;
    }
    Ok(socket)
}

/// A connected socket mostly has the address that the route gave it. On another host the route
/// gives another one, so only the port is kept.
fn bind(socket: &OwnedFd, image: &Image) -> io::Result<()> {
    match sys::sock::bind(socket.as_fd(), &image.address) {
        Err(error)
            if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && !image.peer.is_empty() =>
        {
            sys::sock::bind(socket.as_fd(), &Address(&image.address).on_any())
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};
    use std::net::UdpSocket;

    fn shared(address: &str) -> UdpSocket {
        let any = UdpSocket::bind(address).unwrap();
        let address = sys::sock::local_address(any.as_fd()).unwrap();
        drop(any);
        let domain = if address.len() < 24 { libc::AF_INET } else { libc::AF_INET6 };
        let socket = shape(domain).unwrap().socket().unwrap();
        sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).unwrap();
        sys::sock::bind(socket.as_fd(), &address).unwrap();
        socket.into()
    }

    #[test]
    fn comes_back_bound_and_receives() {
        let original = shared("127.0.0.1:0");
        let trip = round_trip(&[&original]);
        let copy = UdpSocket::from(trip.take(0));
        let _: Image = trip.unchanged();
        let address = original.local_addr().unwrap();
        drop(original);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", address).unwrap();
        let mut room = [0; 9];
        assert_eq!(copy.recv(&mut room).unwrap(), 5);
    }

    #[test]
    fn comes_back_connected_on_ipv6() {
        let peer = UdpSocket::bind("[::1]:0").unwrap();
        let original = shared("[::1]:0");
        original.connect(peer.local_addr().unwrap()).unwrap();
        let trip = round_trip(&[&original]);
        UdpSocket::from(trip.take(0)).send(b"hello").unwrap();
        let _: Image = trip.unchanged();
        assert_eq!(peer.recv(&mut [0; 9]).unwrap(), 5);
    }

    #[test]
    fn comes_back_unbound() {
        let original = shape(libc::AF_INET).unwrap().socket().unwrap();
        let image: Image = round_trip(&[&original]).unchanged();
        assert_eq!((image.address.len(), image.peer.len()), (0, 0));
    }

    #[test]
    fn a_client_keeps_its_port_and_takes_the_address_of_this_host() {
        let peer = super::super::address::v4([127, 0, 0, 1].into(), 9);
        let elsewhere = super::super::address::v4([192, 0, 2, 7].into(), 45_678);
        let image =
            Image { domain: libc::AF_INET, address: elsewhere, peer, options: Options::default() };
        let made = UdpSocket::from(make(&image).unwrap());
        assert_eq!(made.local_addr().unwrap().to_string(), "127.0.0.1:45678");
        let server = Image { peer: Vec::new(), ..image };
        assert_eq!(Udp::check(&server, &[], Owner { pid: 1, fd: 3 }).len(), 1);
    }

    #[test]
    fn queued_datagrams_are_noted() {
        let original = shared("127.0.0.1:0");
        original.send_to(b"to myself", original.local_addr().unwrap()).unwrap();
        assert_eq!(describe(&[&original], Rules::default()).notes.len(), 1);
    }
}
