//! A unix socket that waits for connections, with those that wait to be accepted.
//!
//! Who waits is connected again, by its own process; what it sent before anybody accepted it lies
//! where nobody can look, so that stands against the move.

use super::options::Options;
use super::outside::Blocker;
use super::unix_datagram::place_of;
use super::unix_name::{self, Name, Way};
use super::unix_pair::{shape, unix};
use super::{
    DescriptionImage, Findings, Ground, Kind, Maker, Open, Others, OutsideUnix, Place, Seen,
    SocketCall, Tree, nonsense, sole,
};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use prost::{DecodeError, Message as _};
use std::os::fd::OwnedFd;

pub(super) struct Listener;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// SOCK_STREAM or SOCK_SEQPACKET.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, required, tag = "2")]
    name: Name,
    /// Connections that may wait.
    #[prost(int32, tag = "3")]
    backlog: i32,
    #[prost(message, required, tag = "4")]
    options: Options,
    /// Who listens, as every client is told.
    #[prost(message, required, tag = "5")]
    listens: Maker,
    /// Who waits, in their order.
    #[prost(message, repeated, tag = "6")]
    waiting: Vec<Waiting>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Waiting {
    #[prost(uint32, tag = "1")]
    description: u32,
    #[prost(message, required, tag = "2")]
    connects: Maker,
}

impl Kind for Listener {
    const NAME: &'static str = "listening unix socket";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        unix(seen).is_some_and(|(socket, _)| socket.listening)
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        unix_name::examine(of[0], Self::NAME, findings);
        let object = of[0].object(Self::NAME);
        let outside = strangers(of[0], tree);
        if let Some((reason, advice)) = blocker(outside, tree) {
            findings.refuse(object, reason, advice);
        } else if outside > 0 {
            findings.note(object, "will close connections of others that nobody has accepted");
        }
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        let (open, seen) = (&of[0], of[0].seen);
        let object = || seen.object(Self::NAME);
        if let Some((reason, _)) = blocker(strangers(seen, tree), tree) {
            return Err(Error::invalid("capture", object(), reason));
        }
        let nameless = || Error::invalid("capture", object(), "it has no name");
        let (socket, unix) = unix(seen).ok_or_else(nameless)?;
        let clients = unix.waiting.iter().filter_map(|client| place_of(*client, tree));
        Ok(Image {
            kind: socket.kind,
            name: Name::read(open).on("read the name of", object)?.ok_or_else(nameless)?,
            backlog: i32::try_from(unix.backlog).unwrap_or(i32::MAX),
            options: Options::read(open.local, shape(socket.kind))
                .on("read the options of", object)?,
            listens: Maker::seen_by(open.local).on("ask who listens to", object)?,
            waiting: clients.map(|client| waiting(client, tree)).collect::<Result<_, _>>()?,
        })
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        Self::capture(of, tree).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        at.refusals(Self::NAME, outline.name.lacks(outline.kind))
    }

    fn paths(image: &[u8]) -> Result<Vec<String>, DecodeError> {
        Ok(Image::decode(image)?.name.path().into_iter().collect())
    }

    fn identities(image: &Image) -> Vec<Maker> {
        vec![image.listens.clone()]
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        format!("{}, {} wait there", image.name.shown(), image.waiting.len())
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        if ![libc::SOCK_STREAM, libc::SOCK_SEQPACKET].contains(&image.kind) {
            return Err(nonsense(Self::NAME, "is of a type that cannot listen"));
        }
        Ok(vec![image.options.socket(shape(image.kind)).on("make", || at.object(Self::NAME))?])
    }

    /// Not before every connection that was accepted is made: each of them needs the name.
    fn join(
        image: &Image,
        descriptions: &[DescriptionImage],
        others: &dyn Others,
        _spare: Vec<OwnedFd>,
        at: &Place<'_>,
    ) -> Result<(), Error> {
        let object = || at.object(Self::NAME);
        let Some(socket) = others.of(sole(Self::NAME, descriptions)?.id) else { return Ok(()) };
        image.name.bind(socket).on("bind", object)?;
        let listen = |backlog| {
            let call = SocketCall::Listen { socket, backlog };
            image.listens.ask(call, at).map(drop)
        };
        if !image.waiting.is_empty() {
            // A backlog may have become smaller than what waits already.
            listen(i32::MAX)?;
            let way = Way::to(socket).on("find", object)?;
            for one in &image.waiting {
                let unknown = || nonsense(Self::NAME, "keeps somebody waiting who is not there");
                let client = others.of(one.description).ok_or_else(unknown)?;
                let call = SocketCall::Connect { socket: client, address: &way.address };
                one.connects.ask(call, at)?;
            }
        }
        listen(image.backlog)
    }
}

/// How many wait who are not in the tree: gone ones as well, with what they may have sent.
fn strangers(seen: &Seen, tree: &dyn Tree) -> usize {
    let waiting = unix(seen).map_or(&[][..], |(_, unix)| &unix.waiting);
    waiting.iter().filter(|client| **client == 0 || place_of(**client, tree).is_none()).count()
}

fn blocker(strangers: usize, tree: &dyn Tree) -> Option<Blocker> {
    let may_close = tree.rules().outside_unix == OutsideUnix::Close;
    (strangers > 0 && !may_close).then(|| {
        let advice = "Try again when they are accepted, or allow `--unix close`.";
        (format!("has {strangers} connections from outside that nobody has accepted"), advice)
    })
}

fn waiting(client: u32, tree: &dyn Tree) -> Result<Waiting, Error> {
    let seen = &tree.descriptions()[client as usize];
    let connects = Maker::of_process(seen.in_flight_to.map_or(seen.pid, |(pid, _)| pid))
        .on("read the user of", || seen.object(Listener::NAME))?;
    Ok(Waiting { description: client, connects })
}

#[cfg(test)]
mod tests;
