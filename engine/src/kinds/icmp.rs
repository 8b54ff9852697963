//! A socket for pings, which needs no privilege: icmp(7), ping_group_range. Its port is the
//! identifier of the echo requests that it sends, and goes with it.
//!
//! Replies in its queue are lost, as they may be on their way.

use super::options::{Shape, shut};
use super::raw::{self, Image};
use super::{DescriptionImage, Findings, Ground, Kind, Open, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

pub(super) struct Ping;

impl Kind for Ping {
    const NAME: &'static str = "ICMP socket";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            socket.kind == libc::SOCK_DGRAM
                && matches!(
                    (socket.domain, socket.protocol),
                    (libc::AF_INET, libc::IPPROTO_ICMP) | (libc::AF_INET6, libc::IPPROTO_ICMPV6)
                )
        })
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        let Ok(local) = of[0].steal() else { return };
        raw::examine_packets(of[0], local.as_fd(), Self::NAME, findings);
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        raw::read(&of[0]).on("read", || of[0].seen.object(Self::NAME))
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        Self::capture(of, tree).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        match ping(outline) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => vec![Refusal {
                object: at.object(Self::NAME),
                reason: "cannot be made here: its group may not send pings".to_owned(),
                advice: "Widen net.ipv4.ping_group_range on the destination.".to_owned(),
            }],
            made => {
                let placed = made.and_then(|socket| raw::place(socket, outline, at.coming));
                raw::check(outline, placed, Self::NAME, at.owner)
            }
        }
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        raw::described(image)
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        let made = ping(image).and_then(|socket| raw::place(socket, image, at.stage.coming()));
        let made = made.and_then(|socket| raw::complete(socket, image));
        Ok(vec![made.on("make", || at.object(Self::NAME))?])
    }
}

fn ping(image: &Image) -> io::Result<OwnedFd> {
    raw::ip(image.domain)?;
    let protocol = match image.domain {
        libc::AF_INET6 => libc::IPPROTO_ICMPV6,
        _ => libc::IPPROTO_ICMP,
    };
    let shape = Shape { domain: image.domain, kind: libc::SOCK_DGRAM, protocol };
    let socket = image.options.unset_socket(shape)?;
    shut(socket.as_fd())?;
    image.options.apply(socket.as_fd(), shape)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::super::address::{self, Address};
    use super::super::Owner;
    use super::*;
    use crate::descriptors::trip::capture_own;
    use crate::sys::sock;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// A group that no thread of ours is in.
    const GROUP: u32 = 54_321;

    /// In a network of its own, where only that group may ping, on a thread made for it.
    fn in_a_network(test: impl FnOnce() + Send) {
        let inside = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let any = sock::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
            crate::sys::device::set_up(any.as_fd(), b"lo").unwrap();
            let range = format!("{GROUP} {GROUP}");
            // Of the network of the thread that opens it.
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", range).unwrap();
            test();
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
    }

    fn image_of(socket: &OwnedFd) -> Image {
        prost::Message::decode(&*capture_own(&[socket]).objects[0].bytes).unwrap()
    }

    fn made(image: &Image) -> OwnedFd {
        let socket = ping(image).and_then(|socket| raw::place(socket, image, &[])).unwrap();
        raw::complete(socket, image).unwrap()
    }

    #[test]
    fn comes_back_with_its_identifier_in_a_group_that_is_not_ours() {
        let homes = [
            (libc::AF_INET, libc::IPPROTO_ICMP, IpAddr::from(Ipv4Addr::LOCALHOST), 8),
            (libc::AF_INET6, libc::IPPROTO_ICMPV6, Ipv6Addr::LOCALHOST.into(), 128),
        ];
        in_a_network(move || {
            for (domain, protocol, home, request) in homes {
                let original = sock::socket_as(domain, libc::SOCK_DGRAM, protocol, 0, GROUP).unwrap();
                sock::bind(original.as_fd(), &address::of(home, 4711)).unwrap();
                sock::connect(original.as_fd(), &address::of(home, 1)).unwrap();
                let image = image_of(&original);
                drop(original);
                let copy = made(&image);
                assert_eq!(image_of(&copy), image);
                assert_eq!(Address(&image.address).port(), 4711);
                nix::unistd::write(&copy, &[request, 0, 0, 0, 0, 0, 0, 1]).unwrap();
                let reply = crate::sys::datagram::peek(copy.as_fd(), &mut [0; 99]).unwrap();
                assert_eq!(reply.length, 8);
            }
        });
    }

    #[test]
    fn a_group_that_may_not_ping_is_refused_before() {
        in_a_network(|| {
            let image = Image { domain: libc::AF_INET, protocol: 1, ..Image::default() };
            let refusals = Ping::check(&image, &[], Ground { owner: Owner { pid: 1, fd: 3 }, coming: &[] });
            assert!(refusals[0].advice.contains("ping_group_range"), "{refusals:?}");
        });
    }
}
