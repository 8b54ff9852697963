//! A TCP socket that has neither connected nor listened yet.

use super::address::{Address, bind_coming};
use super::options::{Options, Shape, blocker};
use super::tcp_listen::{is_tcp, tcp_shape};
use super::{DescriptionImage, Findings, Kind, Open, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::sys;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};

pub(super) struct Idle;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    domain: i32,
    /// Empty when it is not bound.
    #[prost(bytes = "vec", tag = "2")]
    address: Vec<u8>,
    #[prost(message, required, tag = "3")]
    options: Options,
}

/// include/net/tcp_states.h.
const TCP_CLOSE: u8 = 7;

impl Kind for Idle {
    const NAME: &'static str = "unconnected TCP socket";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            is_tcp(socket) && socket.tcp_state == TCP_CLOSE && !socket.hung_up
        })
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        let Ok(local) = of[0].steal() else { return };
        let shape = of[0].socket.as_ref().map(Shape::from);
        if let Some((reason, advice)) = shape.and_then(|shape| blocker(local.as_fd(), shape)) {
            findings.refuse(of[0].object(Self::NAME), reason, advice);
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        read(&of[0]).on("read", || of[0].seen.object(Self::NAME))
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        match image.address.is_empty() {
            true => "not bound".to_owned(),
            false => format!("bound to {}", Address(&image.address)),
        }
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![make(image, at.stage.coming()).on("make", || at.object(Self::NAME))?])
    }
}

fn read(open: &Open<'_>) -> io::Result<Image> {
    let domain = open.seen.socket.as_ref().map_or(0, |socket| socket.domain);
    let options = Options::read(open.local, tcp_shape(domain)?)?;
    let address = sys::sock::local_address(open.local)?;
    let is_bound = Address(&address).port() != 0;
    Ok(Image { domain, address: if is_bound { address } else { Vec::new() }, options })
}

fn make(image: &Image, coming: &[IpAddr]) -> io::Result<OwnedFd> {
    let socket = image.options.socket(tcp_shape(image.domain)?)?;
    if !image.address.is_empty() {
        bind_coming(socket.as_fd(), &image.address, coming)?;
    }
    image.options.complete(socket.as_fd())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::trip::round_trip;

    #[test]
    fn comes_back_unconnected_with_its_options() {
        let socket = tcp_shape(libc::AF_INET6).unwrap().socket().unwrap();
        sys::sock::set_number(socket.as_fd(), libc::SOL_TCP, libc::TCP_NODELAY, 1).unwrap();
        let image: Image = round_trip(&[&socket]).unchanged();
        assert_eq!((image.options.set_count(), image.address.len()), (1, 0));
    }

    #[test]
    fn comes_back_bound() {
        let socket = tcp_shape(libc::AF_INET).unwrap().socket().unwrap();
        sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).unwrap();
        let any = super::super::address::v4(std::net::Ipv4Addr::LOCALHOST, 0);
        sys::sock::bind(socket.as_fd(), &any).unwrap();
        let image: Image = round_trip(&[&socket]).unchanged();
        assert_ne!(Address(&image.address).port(), 0);
    }
}
