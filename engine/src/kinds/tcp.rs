//! A TCP connection, or what is left of one.
//!
//! It moves with everything that is in it, and its peer sees no more than packets that were lost.
//! Where a rule has it closed, the program finds on the destination a connection that its peer has
//! reset, which every network program has to cope with.

mod capture;
mod create;
mod diagnosis;
mod dismissal;
mod ending;
mod examine;
pub(super) mod half_open;
mod hold;
mod image;
mod info;
mod life;
pub(crate) mod orphans;
mod repair;
mod segment;
mod silence;
mod timeouts;

use super::address::Address;
use super::tcp_listen::is_tcp;
use super::{
    DescriptionImage, Findings, Ground, Kind, Open, Place, Rules, Seen, Tcp, Tree, sole,
};
use crate::error::{Error, Object, OnObject as _};
use crate::network::Flow;
use crate::refusal::Refusal;
use crate::sys;
use image::Image;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub(super) struct Connection;

impl Kind for Connection {
    const NAME: &'static str = create::NAME;
    const VERSION: u32 = 2;
    const HAS_LIFE: bool = true;
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            is_tcp(socket) && !socket.listening && (socket.hung_up || socket.tcp_state != CLOSE)
        })
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let object = of[0].object(Self::NAME);
        let peer = || peer(of[0]).unwrap_or_else(|_| "an unknown address".to_owned());
        match tree.rules().tcp {
            _ if is_over(of[0]) => {}
            Tcp::Established => examine::examine(of[0], tree, findings),
            Tcp::Refuse => findings.refuse(
                object,
                format!("to {} would have to move, which is ruled out", peer()),
                "Let the program close it, or allow `--tcp established`.",
            ),
            Tcp::Close | Tcp::Reset => findings.note(object, format!("to {} will be reset", peer())),
        }
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        let seen = of[0].seen;
        if !is_over(seen) && tree.rules().tcp != Tcp::Established {
            let domain = seen.socket.as_ref().map_or(0, |socket| socket.domain);
            return Ok(Image { domain, ..Image::default() });
        }
        capture::read(&of[0]).on("read", || seen.object(Self::NAME))
    }

    fn cut_off(image: &Image) -> Option<Image> {
        let live = image.live.as_ref()?;
        let unread = live.opened.as_ref().map(|opened| opened.received.clone());
        Some(Image { live: None, unread: unread.unwrap_or_default(), ..image.clone() })
    }

    fn dismiss(image: &Image) -> Option<Result<(), Error>> {
        let live = image.live.as_ref()?;
        // Of one that is being opened the peer may know nothing yet.
        let opened = live.opened.as_ref()?;
        Some(dismissal::send(live, image.domain, opened))
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        if tree.rules().tcp != Tcp::Established {
            return Ok(None);
        }
        capture::outline(&of[0]).on("read", || of[0].seen.object(Self::NAME))
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let Some(live) = &outline.live else { return Vec::new() };
        let Err(error) = create::bound(live, outline.domain, at.coming) else { return Vec::new() };
        let (local, peer) = (Address(&live.local), Address(&live.peer));
        let ip = local.ip().map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
        vec![match error.source.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => Refusal {
                object: at.object(Self::NAME),
                reason: format!("from {local} to {peer} needs the address {ip}, which is not here"),
                advice: format!("Let it move as well: `--address {ip}/LEN`."),
            },
            _ => Refusal {
                object: at.object(Self::NAME),
                reason: format!("from {local} to {peer} cannot be made here: {}", error.source),
                advice: "Give the destination what it needs, or allow `--tcp close`.".to_owned(),
            },
        }]
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        image.described()
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![match &image.live {
            Some(live) => create::build(live, image.domain, at)?,
            None => ending::make(image).on("make", || at.object(Self::NAME))?,
        }])
    }

    fn flow(open: &Open<'_>, rules: &Rules) -> Result<Option<Flow>, Error> {
        if rules.tcp != Tcp::Established {
            return Ok(None);
        }
        capture::flow_of(open.local).on("name the ends of", || open.seen.object(Self::NAME))
    }

    fn flow_of(image: &Image) -> Option<Flow> {
        let live = image.live.as_ref()?;
        flow(&live.local, &live.peer).ok()
    }

    fn hold(original: BorrowedFd<'_>, rules: &Rules) -> Result<Option<Vec<u8>>, Error> {
        hold::begin(original, rules).on("silence", || named(original))
    }

    fn take_back(original: BorrowedFd<'_>, before: &[u8]) -> Result<(), Error> {
        hold::take_back(original, before).on("take back", || named(original))
    }

    fn leave(original: BorrowedFd<'_>, before: &[u8]) -> Result<(), Error> {
        hold::leave(original, before).on("leave", || named(original))
    }

    fn go_live(_: Option<&Image>, made: BorrowedFd<'_>) -> Result<(), Error> {
        life::begin(made).on("go on with", || named(made))
    }

    fn speak(made: BorrowedFd<'_>) -> Result<(), Error> {
        life::speak(made).on("send what waits in", || named(made))
    }
}

/// For whoever has only the socket itself.
fn named(socket: BorrowedFd<'_>) -> Object {
    let local = sys::sock::local_address(socket).unwrap_or_default();
    let peer = sys::sock::peer_address(socket).ok().flatten().unwrap_or_default();
    Object::Image { part: format!("TCP connection from {} to {}", Address(&local), Address(&peer)) }
}

/// TCP_CLOSE of include/net/tcp_states.h.
const CLOSE: u8 = 7;

fn is_over(seen: &Seen) -> bool {
    seen.socket.as_ref().is_some_and(|socket| socket.tcp_state == CLOSE)
}

fn peer(seen: &Seen) -> io::Result<String> {
    let address = sys::sock::peer_address(seen.steal()?.as_fd())?;
    Ok(Address(&address.unwrap_or_default()).to_string())
}

fn flow(local: &[u8], peer: &[u8]) -> io::Result<Flow> {
    let end = |address: &[u8]| {
        let address = Address(address);
        let ip = address.ip().ok_or(io::ErrorKind::InvalidData)?;
        Ok::<_, io::Error>(SocketAddr::new(ip.to_canonical(), address.port()))
    };
    Ok(Flow { local: end(local)?, peer: end(peer)? })
}

#[cfg(test)]
mod tests;
