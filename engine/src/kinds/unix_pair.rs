//! Two unix sockets that are joined to each other, both in the tree, or one whose peer is closed
//! or stays outside: made by socketpair(2), or by connect(2) and accept(2).
//!
//! Which of the two it was nobody can see any more, but for two traces: an accepted socket has its
//! listener's name, and each end remembers who made the other. So a connection is made as a pair
//! by whoever both ends remember, or else with a listener that lives for that one connection.

mod making;

use super::options::{Options, Shape};
use super::outside::{self, Blocker, Fate};
use super::queue::{self, Queued, Refill};
use super::unix_name::{self, Name};
use super::{
    DescriptionImage, Findings, Ground, Kind, Maker, ObjectKey, Open, Others, Place, Seen,
    SocketSeen, Tree, UnixSeen, nonsense,
};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use crate::sys;
use making::{fill, finish, make};
use nix::sys::socket::Shutdown;
use prost::{DecodeError, Message as _};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

pub(super) struct Pair;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    #[prost(int32, tag = "1")]
    kind: i32,
    /// Indexed by role; one when the other end is closed or stays outside.
    #[prost(message, repeated, tag = "2")]
    ends: Vec<End>,
    /// The only end is connected again, to that name, by that process.
    #[prost(message, optional, tag = "3")]
    outside: Option<Name>,
    #[prost(message, optional, tag = "4")]
    connects: Option<Maker>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct End {
    #[prost(message, repeated, tag = "1")]
    queued: Vec<Queued>,
    /// 1: receives nothing more; 2: sends nothing more.
    #[prost(uint32, tag = "2")]
    shutdown: u32,
    #[prost(message, required, tag = "3")]
    options: Options,
    #[prost(message, optional, tag = "4")]
    name: Option<Name>,
    /// It has its name from the listener that accepted it.
    #[prost(bool, tag = "5")]
    is_accepted: bool,
    /// Who made the other end.
    #[prost(message, required, tag = "6")]
    peer: Maker,
    /// The other end was closed before it had read everything, and nobody has seen the error.
    #[prost(bool, tag = "7")]
    is_reset: bool,
}

/// An image without what is queued.
#[derive(Clone, PartialEq, prost::Message)]
struct Names {
    #[prost(message, repeated, tag = "2")]
    ends: Vec<NamedEnd>,
    #[prost(message, optional, tag = "3")]
    outside: Option<Name>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamedEnd {
    #[prost(message, optional, tag = "4")]
    name: Option<Name>,
}

impl Kind for Pair {
    const NAME: &'static str = "unix socket pair";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        unix(seen).is_some_and(|(socket, unix)| {
            unix.waits_at.is_none() && unix.peer.is_some() && !is_by_name(socket, unix)
        })
    }

    fn key(seen: &Seen) -> ObjectKey {
        let peer = peer(seen);
        let first = if peer == 0 { seen.inode } else { peer.min(seen.inode) };
        ObjectKey::Named(format!("unix:{first}"))
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        for seen in of {
            unix_name::examine(seen, Self::NAME, findings);
            outside::find(findings, seen.object(Self::NAME), fate(seen, of, tree));
        }
    }

    fn role(open: &Open<'_>) -> Result<u32, Error> {
        let peer = peer(open.seen);
        Ok(u32::from(peer != 0 && peer < open.seen.inode))
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        let mut image = Self::without_queues(of, tree)?;
        for (open, end) in by_role(of).into_iter().zip(&mut image.ends) {
            let stays_behind = image.outside.is_some();
            if !stays_behind {
                end.queued = queued(open, image.kind, tree)?;
            }
        }
        Ok(image)
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        let image = Self::without_queues(of, tree)?;
        let matters = image.outside.is_some() || image.ends.iter().any(|end| end.name.is_some());
        Ok(matters.then_some(image))
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let own = outline.ends.iter().filter(|end| !end.is_accepted);
        let names = own.filter_map(|end| end.name.as_ref()?.lacks(outline.kind));
        let outside = outline.outside.iter();
        let outside = outside.filter_map(|name| outside::lacks(name, outline.kind));
        at.refusals(Self::NAME, names.chain(outside))
    }

    fn paths(image: &[u8]) -> Result<Vec<String>, DecodeError> {
        let names = Names::decode(image)?;
        let own = names.ends.iter().filter_map(|end| end.name.as_ref()?.path());
        Ok(own.chain(names.outside.and_then(|name| name.outside_path())).collect())
    }

    fn identities(image: &Image) -> Vec<Maker> {
        image.connects.iter().cloned().collect()
    }

    fn describe(image: &Image, one: &DescriptionImage) -> String {
        let end = image.ends.get(one.role as usize);
        let name = unix_name::described(end.and_then(|end| end.name.as_ref()));
        let other = match (&image.outside, image.ends.len()) {
            (Some(name), _) => format!("connected to {} outside of the tree", name.shown()),
            (None, 2) => "connected to the other end".to_owned(),
            (None, _) => "the other end is closed".to_owned(),
        };
        format!("end {} ({name}), {other}", one.role)
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let mut ends = make(image, at)?.map(Some);
        let mut take = |one: &DescriptionImage| {
            ends.get_mut(role(image, one))
                .filter(|_| role(image, one) < image.ends.len())
                .and_then(Option::take)
                .ok_or_else(|| nonsense(Self::NAME, "has an end twice, or none of that role"))
        };
        let mut made = descriptions.iter().map(&mut take).collect::<Result<Vec<_>, _>>()?;
        if made.len() != image.ends.len() {
            return Err(nonsense(Self::NAME, "lacks an end"));
        }
        made.extend(ends.into_iter().flatten());
        Ok(made)
    }

    fn join(
        image: &Image,
        descriptions: &[DescriptionImage],
        others: &dyn Others,
        spare: Vec<OwnedFd>,
        at: &Place<'_>,
    ) -> Result<(), Error> {
        let mut ends: Vec<_> =
            descriptions.iter().filter_map(|one| Some((role(image, one), others.of(one.id)?))).collect();
        ends.sort_by_key(|(role, _)| *role);
        let ends: Vec<_> = ends.into_iter().map(|(_, end)| end).collect();
        let both: Vec<_> = ends.iter().copied().chain(spare.iter().map(|fd| fd.as_fd())).collect();
        let [one, two] = both[..] else {
            return Err(nonsense(Self::NAME, "does not have two ends"));
        };
        let refill = Refill { others, stage: at.stage };
        fill(image, [one, two], refill).on("fill", || at.object(Self::NAME))?;
        drop(spare);
        finish(image, &ends, at)
    }
}

impl Pair {
    fn without_queues(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        let seen: Vec<_> = of.iter().map(|open| open.seen).collect();
        let first = seen[0];
        let mut image = Image { kind: kind(first), ..Image::default() };
        for open in by_role(of) {
            let fate = fate(open.seen, &seen, tree).map_err(|(reason, _)| {
                Error::invalid("capture", open.seen.object(Self::NAME), reason)
            })?;
            let end = read(open, image.kind).on("read", || open.seen.object(Self::NAME))?;
            if let Some(Fate::Reconnected(name)) = fate {
                let own = Maker::of_process(owner_of(open, tree))
                    .on("read the user of", || open.seen.object(Self::NAME))?;
                (image.outside, image.connects) = (Some(name), Some(own));
            }
            image.ends.push(end);
        }
        Ok(image)
    }
}

/// A lone end is the first, whatever it was when there were two.
fn role(image: &Image, description: &DescriptionImage) -> usize {
    if image.ends.len() == 1 { 0 } else { description.role as usize }
}

/// A process of the tree that has it.
pub(super) fn owner_of(open: &Open<'_>, tree: &dyn Tree) -> i32 {
    match open.seen.in_flight_to {
        Some((pid, _)) => pid,
        None => tree.descriptors(open.index).first().map_or(open.seen.pid, |(pid, _)| *pid),
    }
}

pub(super) fn unix(seen: &Seen) -> Option<(&SocketSeen, &UnixSeen)> {
    let socket = seen.socket.as_ref()?;
    Some((socket, socket.unix.as_ref()?))
}

/// A datagram socket that found its peer by name. Two without a name, or one, are a pair.
pub(super) fn is_by_name(socket: &SocketSeen, unix: &UnixSeen) -> bool {
    let one_way = !unix.answered || !unix.name.is_empty();
    socket.kind == libc::SOCK_DGRAM && !unix.peer_name.is_empty() && one_way
}

fn peer(seen: &Seen) -> u64 {
    unix(seen).and_then(|(_, unix)| unix.peer).unwrap_or(0)
}

fn kind(seen: &Seen) -> i32 {
    seen.socket.as_ref().map_or(0, |socket| socket.kind)
}

fn by_role<'a, 'b>(of: &'a [Open<'b>]) -> Vec<&'a Open<'b>> {
    let mut by_role: Vec<_> = of.iter().collect();
    by_role.sort_by_key(|open| peer(open.seen) < open.seen.inode && peer(open.seen) != 0);
    by_role
}

/// What becomes of an end whose other end is not in the tree.
fn fate(seen: &Seen, of: &[&Seen], tree: &dyn Tree) -> Result<Option<Fate>, Blocker> {
    let Some((socket, unix)) = unix(seen) else { return Ok(None) };
    let peer = peer(seen);
    if socket.kind != libc::SOCK_STREAM && seen.steal().is_ok_and(|local| has_failed(&local)) {
        // Looking into the queue would take the error.
        let reason = "was closed by its peer, which the program has not seen".to_owned();
        return Err((reason, "Let the program read from it."));
    }
    match of.iter().find(|other| other.inode == peer) {
        _ if peer == 0 => Ok(None),
        Some(_) if unix.answered => Ok(None),
        Some(_) => {
            Err(("sends to a socket that does not answer it".to_owned(), "Let it be closed."))
        }
        None => outside::fate(socket, tree.rules()).map(Some),
    }
}

pub(super) fn shape(kind: i32) -> Shape {
    Shape { domain: libc::AF_UNIX, kind, protocol: 0 }
}

/// What is queued in a socket. One that carries descriptors was looked into before.
pub(super) fn queued(
    open: &Open<'_>,
    kind: i32,
    tree: &dyn Tree,
) -> Result<Vec<Queued>, Error> {
    match tree.carried(open.index) {
        Some(queue) => Ok(queue.to_vec()),
        None => queue::read(open.local, kind)
            .on("copy what is queued in", || open.seen.object("unix socket")),
    }
}

fn read(open: &Open<'_>, kind: i32) -> io::Result<End> {
    let unix = unix(open.seen).map(|(_, unix)| unix).cloned().unwrap_or_default();
    // A closed peer shuts both ways by itself.
    let is_closed = peer(open.seen) == 0;
    Ok(End {
        queued: Vec::new(),
        shutdown: if is_closed { 0 } else { u32::from(unix.shutdown) },
        options: Options::read(open.local, shape(kind))?,
        name: Name::read(open)?,
        is_accepted: unix.shares_name,
        peer: Maker::seen_by(open.local)?,
        is_reset: is_closed && has_failed(&open.local),
    })
}

fn has_failed(socket: &impl AsFd) -> bool {
    sys::fd::poll(socket.as_fd(), 0, 0).is_ok_and(|seen| seen & libc::POLLERR != 0)
}

pub(super) fn shut(socket: BorrowedFd<'_>, shutdown: u32) -> io::Result<()> {
    let how = match shutdown {
        0 => return Ok(()),
        1 => Shutdown::Read,
        2 => Shutdown::Write,
        _ => Shutdown::Both,
    };
    Ok(nix::sys::socket::shutdown(socket.as_raw_fd(), how)?)
}

#[cfg(test)]
mod tests;
