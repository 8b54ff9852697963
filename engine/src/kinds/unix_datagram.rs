//! A unix datagram socket that finds others by name, or is found by it: with or without a name of
//! its own, connected or not. Two that were made as a pair are one of another kind.

use super::options::Options;
use super::outside::{self, Blocker, Fate};
use super::queue::{Queued, Refill};
use super::unix_name::{self, Name, Way};
use super::unix_pair::{is_by_name, owner_of, queued, shape, shut, unix};
use super::{
    DescriptionImage, Findings, Ground, Kind, Maker, Open, Others, Place, Seen, SocketCall, Tree,
    sole,
};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use prost::{DecodeError, Message as _};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub(super) struct Datagram;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, optional, tag = "1")]
    name: Option<Name>,
    #[prost(message, required, tag = "2")]
    options: Options,
    /// 1: receives nothing more; 2: sends nothing more.
    #[prost(uint32, tag = "3")]
    shutdown: u32,
    #[prost(message, repeated, tag = "4")]
    queued: Vec<Queued>,
    /// The description that it is connected to.
    #[prost(uint32, optional, tag = "5")]
    peer: Option<u32>,
    /// It is connected to that name, by that process.
    #[prost(message, optional, tag = "6")]
    outside: Option<Name>,
    #[prost(message, optional, tag = "7")]
    connects: Option<Maker>,
    /// Whose messages are queued, as far as they are in the tree: the descriptions.
    #[prost(uint32, repeated, tag = "8")]
    senders: Vec<u32>,
    /// It is connected to somebody who is gone.
    #[prost(bool, tag = "9")]
    is_abandoned: bool,
}

/// An image without what is queued.
#[derive(Clone, PartialEq, prost::Message)]
struct Names {
    #[prost(message, optional, tag = "1")]
    name: Option<Name>,
    #[prost(message, optional, tag = "6")]
    outside: Option<Name>,
}

impl Kind for Datagram {
    const NAME: &'static str = "unix datagram socket";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        unix(seen).is_some_and(|(socket, unix)| {
            let is_alone = unix.peer.is_none();
            socket.kind == libc::SOCK_DGRAM && (is_alone || is_by_name(socket, unix))
        })
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        unix_name::examine(of[0], Self::NAME, findings);
        outside::find(findings, of[0].object(Self::NAME), fate(of[0], tree));
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        let queued = queued(&of[0], libc::SOCK_DGRAM, tree)?;
        let senders = senders(&queued, tree);
        Ok(Image { queued, senders, ..without_queue(&of[0], tree)? })
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        let image = without_queue(&of[0], tree)?;
        Ok((image.name.is_some() || image.outside.is_some()).then_some(image))
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let own = outline.name.iter().filter_map(|name| name.lacks(libc::SOCK_DGRAM));
        let outside = outline.outside.iter();
        let outside = outside.filter_map(|name| outside::lacks(name, libc::SOCK_DGRAM));
        at.refusals(Self::NAME, own.chain(outside))
    }

    fn paths(image: &[u8]) -> Result<Vec<String>, DecodeError> {
        let Names { name, outside } = Names::decode(image)?;
        let own = name.and_then(|name| name.path());
        Ok(own.into_iter().chain(outside.and_then(|name| name.outside_path())).collect())
    }

    fn identities(image: &Image) -> Vec<Maker> {
        image.connects.iter().cloned().collect()
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        let connected = match (&image.outside, image.peer) {
            (Some(name), _) => format!("connected to {} outside of the tree", name.shown()),
            (None, Some(peer)) => format!("connected to description {peer}"),
            (None, None) => "not connected".to_owned(),
        };
        format!("{}, {connected}", unix_name::described(image.name.as_ref()))
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        let object = || at.object(Self::NAME);
        let made = shape(libc::SOCK_DGRAM).socket().on("make", object)?;
        if let Some(name) = &image.name {
            name.bind(made.as_fd()).on("bind", object)?;
        }
        Ok(vec![made])
    }

    fn join(
        image: &Image,
        descriptions: &[DescriptionImage],
        others: &dyn Others,
        _spare: Vec<OwnedFd>,
        at: &Place<'_>,
    ) -> Result<(), Error> {
        let object = || at.object(Self::NAME);
        let own = sole(Self::NAME, descriptions)?.id;
        let Some(socket) = others.of(own) else { return Ok(()) };
        let refill = Refill { others, stage: at.stage };
        fill(image, socket, refill).on("fill", object)?;
        image.options.apply(socket, shape(libc::SOCK_DGRAM)).on("set the options of", object)?;
        connect(image, socket, others, at)?;
        shut(socket, image.shutdown).on("shut", object)
    }
}

/// What becomes of one whose peer is not in the tree.
fn fate(seen: &Seen, tree: &dyn Tree) -> Result<Option<Fate>, Blocker> {
    let Some((socket, unix)) = unix(seen) else { return Ok(None) };
    let Some(peer) = unix.peer else { return Ok(None) };
    match place_of(peer, tree) {
        None => outside::fate(socket, tree.rules()).map(Some),
        Some(place) if !unix.answered && is_connected(place, tree) => {
            Err((TURNED.to_owned(), "Let it be closed: nothing that it sends arrives."))
        }
        Some(_) => Ok(None),
    }
}

const TURNED: &str = "is connected to a socket that hears another one alone";

/// Nobody else can connect to one that is, so the order would have to be known.
fn is_connected(place: u32, tree: &dyn Tree) -> bool {
    unix(&tree.descriptions()[place as usize]).is_some_and(|(_, unix)| unix.peer.is_some())
}

/// The place of a socket among the tree's descriptions.
pub(super) fn place_of(inode: u64, tree: &dyn Tree) -> Option<u32> {
    let is_it = |seen: &Seen| seen.inode == inode && seen.socket.is_some();
    let place = tree.descriptions().iter().position(is_it)?;
    u32::try_from(place).ok()
}

fn without_queue(open: &Open<'_>, tree: &dyn Tree) -> Result<Image, Error> {
    let object = || open.seen.object(Datagram::NAME);
    let fate = fate(open.seen, tree)
        .map_err(|(reason, _)| Error::invalid("capture", object(), reason))?;
    let (peer, shutdown) = unix(open.seen).map_or((None, 0), |(_, one)| (one.peer, one.shutdown));
    let mut image = Image {
        name: Name::read(open).on("read the name of", object)?,
        options: Options::read(open.local, shape(libc::SOCK_DGRAM))
            .on("read the options of", object)?,
        shutdown: shutdown.into(),
        peer: peer.and_then(|peer| place_of(peer, tree)),
        is_abandoned: fate == Some(Fate::Closed),
        ..Image::default()
    };
    if let Some(Fate::Reconnected(name)) = fate {
        let own = Maker::of_process(owner_of(open, tree)).on("read the user of", object)?;
        (image.outside, image.connects) = (Some(name), Some(own));
    }
    Ok(image)
}

/// The sockets of the tree that have the names of those who sent something.
fn senders(queue: &[Queued], tree: &dyn Tree) -> Vec<u32> {
    let has_sent = |seen: &Seen| {
        let name = unix(seen).map(|(_, unix)| Name::outside(&unix.name));
        let sent = |message: &Queued| {
            let sender = message.name.get(2..).map(Name::outside);
            !message.name.is_empty() && sender == name
        };
        is_datagram(seen) && queue.iter().any(sent)
    };
    let places = (0..).zip(tree.descriptions());
    places.filter(|(_, seen)| has_sent(seen)).map(|(place, _)| place).collect()
}

fn is_datagram(seen: &Seen) -> bool {
    unix(seen).is_some_and(|(socket, unix)| {
        socket.kind == libc::SOCK_DGRAM && !unix.name.is_empty()
    })
}

/// From sockets with the names of those who had sent it: those of the tree, or others that live
/// for the moment.
fn fill(image: &Image, socket: BorrowedFd<'_>, refill: Refill<'_>) -> io::Result<()> {
    if image.queued.is_empty() {
        return Ok(());
    }
    let way = Way::to(socket)?;
    let mut made = HashMap::new();
    for message in &image.queued {
        let sender = match sender_of_tree(image, message, refill.others) {
            Some(sender) => sender,
            None => {
                if !made.contains_key(&message.name) {
                    made.insert(message.name.clone(), stranger(&message.name)?);
                }
                made[&message.name].as_fd()
            }
        };
        refill.send(sender, Some(&way.address), std::slice::from_ref(message)).map_err(too_many)?;
    }
    Ok(())
}

fn sender_of_tree<'a>(
    image: &Image,
    message: &Queued,
    others: &'a dyn Others,
) -> Option<BorrowedFd<'a>> {
    let senders = image.senders.iter().filter_map(|id| others.of(*id));
    let has_name = |sender: &BorrowedFd<'_>| {
        let name = crate::sys::sock::local_address(*sender);
        name.is_ok_and(|name| name.len() > 2 && name == message.name)
    };
    senders.into_iter().find(has_name)
}

/// A socket with the name of one that is closed, or stays outside. An abstract name may be taken
/// here; then the message comes from nobody.
fn stranger(name: &[u8]) -> io::Result<OwnedFd> {
    let made = shape(libc::SOCK_DGRAM).socket()?;
    let Some(name) = name.get(2..).filter(|name| !name.is_empty()) else { return Ok(made) };
    match Name::outside(name).bind_apart(made.as_fd()) {
        Err(error) if error.raw_os_error() != Some(libc::EADDRINUSE) => return Err(error),
        _ => {}
    }
    Ok(made)
}

fn too_many(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other(
            "more messages are queued than net.unix.max_dgram_qlen allows on this host",
        ),
        _ => error,
    }
}

fn connect(
    image: &Image,
    socket: BorrowedFd<'_>,
    others: &dyn Others,
    at: &Place<'_>,
) -> Result<(), Error> {
    let object = || at.object(Datagram::NAME);
    if let (Some(name), Some(connects)) = (&image.outside, &image.connects) {
        let address = name.address().on("find the peer of", object)?;
        let call = SocketCall::Reconnect { socket, address: &address };
        return connects.ask(call, at).map(drop);
    }
    if let Some(peer) = image.peer {
        let unknown = || Error::invalid("connect", object(), "its peer is not in the tree");
        let way = Way::to(others.of(peer).ok_or_else(unknown)?).on("find the peer of", object)?;
        crate::sys::sock::connect(socket, &way.address).on("connect", object)?;
    }
    if image.is_abandoned {
        abandon(socket).on("connect", object)?;
    }
    Ok(())
}

/// Connects it to a socket that is closed: sending is refused from then on.
fn abandon(socket: BorrowedFd<'_>) -> io::Result<()> {
    let gone = shape(libc::SOCK_DGRAM).socket()?;
    Name::outside(b"gone").bind_apart(gone.as_fd())?;
    crate::sys::sock::connect(socket, &Way::to(gone.as_fd())?.address)
}

#[cfg(test)]
mod tests;
