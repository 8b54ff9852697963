//! Two sockets that are joined, with the traces of how they came to be.

use super::{End, Image, Pair, shape, shut};
use crate::error::{Error, OnObject as _};
use crate::kinds::queue::Refill;
use crate::kinds::unix_name::{Name, Way};
use crate::kinds::{Kind as _, Place, SocketCall, nonsense};
use crate::sys;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The ends by role; where there is but one, the other is nobody's.
pub(super) fn make(image: &Image, at: &Place<'_>) -> Result<[OwnedFd; 2], Error> {
    let known = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET].contains(&image.kind);
    if !known || !(1..=2).contains(&image.ends.len()) {
        return Err(nonsense(Pair::NAME, "is of no type, or has no end or too many"));
    }
    let object = || at.object(Pair::NAME);
    if image.outside.is_some() {
        let own = shape(image.kind).socket().on("make", object)?;
        bind_ends(image, [own.as_fd(); 2], None).on("bind", object)?;
        let other = shape(image.kind).socket().on("make", object)?;
        return Ok([own, other]);
    }
    let server = server(image);
    let ends = match server {
        Some(server) => accepted(image, server, at)?,
        None => pair(image, at)?,
    };
    bind_ends(image, [ends[0].as_fd(), ends[1].as_fd()], server).on("bind", object)?;
    Ok(ends)
}

/// The end that has to be accepted for the traces to be as they were.
fn server(image: &Image) -> Option<usize> {
    let needs = |end: &End| {
        end.is_accepted && end.name.as_ref().is_some_and(Name::is_abstract)
    };
    let made_by_one = image.ends.iter().all(|end| end.peer == image.ends[0].peer);
    if image.kind == libc::SOCK_DGRAM || made_by_one && !image.ends.iter().any(needs) {
        return None;
    }
    let accepted = image.ends.iter().position(|end| end.is_accepted);
    accepted.or_else(|| image.ends.iter().position(|end| end.name.is_some()))
}

fn pair(image: &Image, at: &Place<'_>) -> Result<[OwnedFd; 2], Error> {
    let call = SocketCall::Pair { kind: image.kind };
    let made = image.ends[0].peer.ask(call, at)?;
    made.try_into().map_err(|_| nonsense(Pair::NAME, "was not made as two ends"))
}

/// By a listener with the name of that end, which whoever the client remembers listens to.
fn accepted(image: &Image, server: usize, at: &Place<'_>) -> Result<[OwnedFd; 2], Error> {
    let object = || at.object(Pair::NAME);
    let connects = &image.ends[server].peer;
    let listens = image.ends.get(1 - server).map_or(connects, |client| &client.peer);
    let (listener, client) = (shape(image.kind).socket(), shape(image.kind).socket());
    let (listener, client) = (listener.on("make", object)?, client.on("make", object)?);
    if let Some(name) = &image.ends[server].name {
        name.bind_apart(listener.as_fd()).on("name", object)?;
    }
    let call = SocketCall::Listen { socket: listener.as_fd(), backlog: 1 };
    listens.ask(call, at)?;
    let way = Way::to(listener.as_fd()).on("find", object)?;
    let call = SocketCall::Connect { socket: client.as_fd(), address: &way.address };
    connects.ask(call, at)?;
    let accepted = sys::sock::accept(listener.as_fd()).on("accept", object)?;
    Ok(if server == 0 { [accepted, client] } else { [client, accepted] })
}

fn bind_ends(
    image: &Image,
    ends: [BorrowedFd<'_>; 2],
    has_its_name: Option<usize>,
) -> io::Result<()> {
    for (role, (end, socket)) in image.ends.iter().zip(ends).enumerate() {
        match &end.name {
            Some(name) if has_its_name != Some(role) => name.bind(socket)?,
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn fill(image: &Image, ends: [BorrowedFd<'_>; 2], refill: Refill<'_>) -> io::Result<()> {
    if image.outside.is_some() {
        return Ok(());
    }
    for (role, end) in image.ends.iter().enumerate() {
        refill.send(ends[1 - role], None, &end.queued)?;
    }
    if image.ends.iter().any(|end| end.is_reset) {
        // Unread when its end is closed, it is what the error tells of.
        sys::ancillary::send(ends[0], b"x", sys::ancillary::Along::default())?;
    }
    Ok(())
}

/// Options come last: those of credentials would change what is sent.
pub(super) fn finish(image: &Image, ends: &[BorrowedFd<'_>], at: &Place<'_>) -> Result<(), Error> {
    let object = || at.object(Pair::NAME);
    for (&socket, end) in ends.iter().zip(&image.ends) {
        end.options.apply(socket, shape(image.kind)).on("set the options of", object)?;
        if let (Some(name), Some(connects)) = (&image.outside, &image.connects) {
            let address = name.address().on("find", object)?;
            let call = SocketCall::Reconnect { socket, address: &address };
            connects.ask(call, at)?;
        }
        shut(socket, end.shutdown).on("shut", object)?;
    }
    Ok(())
}
