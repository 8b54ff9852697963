//! A netlink socket, through which a program talks to the kernel: netlink(7).
//!
//! It can be made again while no answer is on its way: nothing could put one into its queue. What
//! it was told of (changes of links, events of devices) is the source's, and says nothing here.

use super::options::{Options, Shape, blocker, shut};
use super::{DescriptionImage, Findings, Ground, Kind, Open, Place, Seen, Tree, nonsense, sole};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use crate::sys;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub(super) struct Netlink;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// SOCK_RAW or SOCK_DGRAM, which are the same here.
    #[prost(int32, tag = "1")]
    kind: i32,
    /// NETLINK_*.
    #[prost(int32, tag = "2")]
    protocol: i32,
    /// Its own port id; 0 when it is not bound.
    #[prost(uint32, tag = "3")]
    port: u32,
    /// Of whom it is connected to; 0 is the kernel.
    #[prost(uint32, tag = "4")]
    peer: u32,
    /// A mask; the first group to which it is connected.
    #[prost(uint32, tag = "5")]
    peer_groups: u32,
    /// The multicast groups that it hears, counted from 1.
    #[prost(uint32, repeated, tag = "6")]
    groups: Vec<u32>,
    #[prost(message, required, tag = "7")]
    options: Options,
}

const SOCK_DIAG: i32 = 4;

impl Kind for Netlink {
    const NAME: &'static str = "netlink socket";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| socket.domain == libc::AF_NETLINK)
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        let object = of[0].object(Self::NAME);
        let (Ok(local), Some(socket)) = (of[0].steal(), &of[0].socket) else { return };
        if let Some((reason, advice)) = stays(socket.protocol) {
            return findings.refuse(object, reason, advice);
        }
        let blocked = blocker(local.as_fd(), Shape::from(socket));
        if let Some((reason, advice)) = blocked.or_else(|| unread(local.as_fd(), of[0])) {
            findings.refuse(object, reason, advice);
        } else if groups(local.as_fd()).is_ok_and(|groups| !groups.is_empty()) {
            let text = "is told nothing of what is different on the destination when it gets there";
            findings.note(object, text);
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let object = || of[0].seen.object(Self::NAME);
        if let Some((reason, _)) = unread(of[0].local, of[0].seen) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, reason)).on("read", object);
        }
        read(&of[0]).on("read", object)
    }

    fn outline(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Option<Image>, Error> {
        read(&of[0]).on("read", || of[0].seen.object(Self::NAME)).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let Err(error) = make(outline) else { return Vec::new() };
        vec![Refusal {
            object: at.object(Self::NAME),
            reason: format!("cannot be made with port id {} here: {error}", outline.port),
            advice: "Stop what uses that id; /proc/net/netlink lists them.".to_owned(),
        }]
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        format!("protocol {}, port {}", image.protocol, image.port)
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        if stays(image.protocol).is_some() {
            return Err(nonsense(Self::NAME, "has a protocol that is never moved"));
        }
        Ok(vec![make(image).on("make", || at.object(Self::NAME))?])
    }
}

/// Why sockets of a protocol stay where they are; `None` for those that move.
fn stays(protocol: i32) -> Option<(&'static str, &'static str)> {
    let close = "Let the program close it first.";
    match protocol {
        libc::NETLINK_ROUTE | SOCK_DIAG | libc::NETLINK_KOBJECT_UEVENT => None,
        libc::NETLINK_NETFILTER => {
            Some(("(netfilter) may have tables or queues of this host bound to it", close))
        }
        libc::NETLINK_AUDIT => Some(("(audit) may be the one that this kernel reports to", close)),
        libc::NETLINK_GENERIC => {
            Some(("(generic) talks to families that have other numbers on another host", close))
        }
        libc::NETLINK_XFRM => Some(("(xfrm) belongs to the IPsec of this host", close)),
        libc::NETLINK_CONNECTOR => {
            Some(("(connector) has its subscriptions in this kernel, which does not tell them", close))
        }
        libc::NETLINK_USERSOCK => {
            Some(("(usersock) talks to other programs, and nothing tells to whom", close))
        }
        _ => Some(("has a protocol that cannot be moved", close)),
    }
}

/// What is on its way to the program. Events of devices may be lost, as they are when there are
/// too many of them; an answer for which a program waits may not.
fn unread(socket: BorrowedFd<'_>, seen: &Seen) -> Option<(&'static str, &'static str)> {
    let again = "Try again in a moment: it will have been read then, unless the program hangs.";
    let text = std::fs::read_to_string(format!("/proc/{}/net/netlink", seen.pid));
    if text.is_ok_and(|text| is_dumping(&text, seen.inode)) {
        return Some(("is in the middle of a list that the kernel gives it", again));
    }
    let is_event = seen.socket.as_ref()?.protocol == libc::NETLINK_KOBJECT_UEVENT;
    let now = sys::fd::poll(socket, libc::POLLIN, 0).unwrap_or(0);
    let waits = now & (libc::POLLIN | libc::POLLERR) != 0;
    (waits && !is_event).then_some(("has an answer that was not read yet", again))
}

/// The columns `Dump` and `Inode` of /proc/net/netlink.
pub(super) fn is_dumping(list: &str, inode: u64) -> bool {
    list.lines().any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        columns.get(9).and_then(|text| text.parse().ok()) == Some(inode)
            && columns.get(6).is_some_and(|dump| *dump != "0")
    })
}

fn read(open: &Open<'_>) -> io::Result<Image> {
    let socket = open.seen.socket.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
    let (kind, protocol) = (socket.kind, socket.protocol);
    let options = Options::read(open.local, Shape::from(socket))?;
    let (port, _) = parts(&sys::sock::local_address(open.local)?);
    let (peer, peer_groups) = parts(&sys::sock::peer_address(open.local)?.unwrap_or_default());
    let groups = groups(open.local)?;
    Ok(Image { kind, protocol, port, peer, peer_groups, groups, options })
}

/// The port id and the groups of a `sockaddr_nl`.
fn parts(address: &[u8]) -> (u32, u32) {
    let word = |at: usize| {
        let bytes = address.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    (word(4), word(8))
}

fn address(port: u32, groups: u32) -> Vec<u8> {
    let family = u16::try_from(libc::AF_NETLINK).unwrap_or_default();
    let mut bytes = [family, 0].map(u16::to_ne_bytes).concat();
    bytes.extend([port, groups].map(u32::to_ne_bytes).concat());
    bytes
}

/// More groups than any protocol has.
const GROUPS_MAX: u32 = 1024;

/// NETLINK_LIST_MEMBERSHIPS fills a mask.
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut mask = [0; GROUPS_MAX as usize / 8];
    sys::sock::read_option(socket, libc::SOL_NETLINK, libc::NETLINK_LIST_MEMBERSHIPS, &mut mask)?;
    let is_in = |group: &u32| {
        let at = (group - 1) as usize;
        mask[at / 8] & 1 << (at % 8) != 0
    };
    Ok((1..=GROUPS_MAX).filter(is_in).collect())
}

fn make(image: &Image) -> io::Result<OwnedFd> {
    let shape =
        Shape { domain: libc::AF_NETLINK, kind: image.kind, protocol: image.protocol };
    let socket = image.options.socket(shape)?;
    shut(socket.as_fd())?;
    if image.port != 0 {
        sys::sock::bind(socket.as_fd(), &address(image.port, 0))?;
    }
    for &group in &image.groups {
        let group = i32::try_from(group).map_err(|_| io::ErrorKind::InvalidData)?;
        let (level, name) = (libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP);
        sys::sock::set_number(socket.as_fd(), level, name, group)?;
    }
    if (image.peer, image.peer_groups) != (0, 0) {
        sys::sock::connect(socket.as_fd(), &address(image.peer, image.peer_groups))?;
    }
    image.options.complete(socket.as_fd())?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
