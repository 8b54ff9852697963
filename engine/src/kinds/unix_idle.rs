//! A unix stream or seqpacket socket that is not connected: with or without a name, or one that
//! waits at a listening socket of the tree to be accepted (that one connects it again).

use super::options::Options;
use super::outside::Blocker;
use super::unix_datagram::place_of;
use super::unix_name::{self, Name};
use super::unix_pair::{shape, shut, unix};
use super::{
    DescriptionImage, Findings, Ground, Kind, Open, Others, Place, Rules, Seen, Tree, Wait,
    nonsense, sole,
};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use crate::sys;
use prost::{DecodeError, Message as _};
use std::os::fd::{AsFd as _, OwnedFd};

pub(super) struct Unconnected;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// SOCK_STREAM or SOCK_SEQPACKET.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, required, tag = "2")]
    options: Options,
    #[prost(message, optional, tag = "3")]
    name: Option<Name>,
    /// 1: receives nothing more; 2: sends nothing more.
    #[prost(uint32, tag = "4")]
    shutdown: u32,
}

impl Kind for Unconnected {
    const NAME: &'static str = "unconnected unix socket";
    const IS_WAITED_FOR: bool = true;
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        unix(seen).is_some_and(|(socket, unix)| {
            let is_alone = unix.peer.is_none() || unix.waits_at.is_some();
            !socket.listening && socket.kind != libc::SOCK_DGRAM && is_alone
        })
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        unix_name::examine(of[0], Self::NAME, findings);
        let object = of[0].object(Self::NAME);
        if let Some((reason, advice)) = blocker(of[0], tree) {
            findings.refuse(object, reason, advice);
        } else if has_begun(of[0]) {
            findings.note(object, format!("{BEGUN}; the move waits for that"));
        }
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        if has_begun(of[0].seen) {
            return Err(Error::invalid("capture", of[0].seen.object(Self::NAME), BEGUN));
        }
        Self::read(&of[0], tree)
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        Self::read(&of[0], tree).map(|image| image.name.is_some().then_some(image))
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let name = outline.name.as_ref();
        at.refusals(Self::NAME, name.and_then(|name| name.lacks(outline.kind)))
    }

    fn paths(image: &[u8]) -> Result<Vec<String>, DecodeError> {
        Ok(Image::decode(image)?.name.and_then(|name| name.path()).into_iter().collect())
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        unix_name::described(image.name.as_ref())
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        let object = || at.object(Self::NAME);
        if ![libc::SOCK_STREAM, libc::SOCK_SEQPACKET].contains(&image.kind) {
            return Err(nonsense(Self::NAME, "is of another type"));
        }
        let made = image.options.socket(shape(image.kind)).on("make", object)?;
        if let Some(name) = &image.name {
            name.bind(made.as_fd()).on("bind", object)?;
        }
        Ok(vec![made])
    }

    /// What was shut could not listen any more, nor be connected.
    fn join(
        image: &Image,
        descriptions: &[DescriptionImage],
        others: &dyn Others,
        _spare: Vec<OwnedFd>,
        at: &Place<'_>,
    ) -> Result<(), Error> {
        let own = sole(Self::NAME, descriptions)?.id;
        let Some(socket) = others.of(own) else { return Ok(()) };
        shut(socket, image.shutdown).on("shut", || at.object(Self::NAME))
    }

    /// By what it has sent and nobody has read: whether it waits still, only a frozen tree shows.
    fn waiting(open: &Open<'_>, _rules: &Rules) -> Result<Option<Wait>, Error> {
        let object = || open.seen.object(Self::NAME);
        let unread = sys::tcp::unacknowledged_bytes(open.local).on("ask for what is unread of", object)?;
        let is_shut = unix(open.seen).is_some_and(|(_, unix)| unix.shutdown != 0);
        let waits = has_begun(open.seen) && (unread > 0 || is_shut);
        Ok(waits.then(|| Wait { why: format!("it {BEGUN}"), is_vital: true }))
    }
}

impl Unconnected {
    fn read(open: &Open<'_>, tree: &dyn Tree) -> Result<Image, Error> {
        let (seen, object) = (open.seen, || open.seen.object(Self::NAME));
        if let Some((reason, _)) = blocker(seen, tree) {
            return Err(Error::invalid("capture", object(), reason));
        }
        let kind = seen.socket.as_ref().map_or(0, |socket| socket.kind);
        Ok(Image {
            kind,
            options: Options::read(open.local, shape(kind)).on("read the options of", object)?,
            name: Name::read(open).on("read the name of", object)?,
            shutdown: unix(seen).map_or(0, |(_, unix)| unix.shutdown.into()),
        })
    }
}

/// Of one that waits.
fn blocker(seen: &Seen, tree: &dyn Tree) -> Option<Blocker> {
    let listener = unix(seen)?.1.waits_at?;
    let reason = || "waits for a process outside of the tree to accept it".to_owned();
    place_of(listener, tree).is_none().then(|| (reason(), "Try again in a moment."))
}

const BEGUN: &str = "has sent something before it was accepted";

/// Of one that waits: what it has sent nobody can look at before it is accepted.
fn has_begun(seen: &Seen) -> bool {
    let waits = unix(seen).filter(|(_, unix)| unix.waits_at.is_some());
    waits.is_some_and(|(_, unix)| unix.unread != 0 || unix.shutdown != 0)
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{describe, make_after, round_trip};

    #[test]
    fn comes_back_as_what_it_is() {
        for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
            let original = shape(kind).socket().unwrap();
            let image: Image = round_trip(&[&original]).unchanged();
            assert_eq!((image.kind, image.name), (kind, None));
        }
    }

    #[test]
    fn comes_back_with_its_name_whether_or_not_it_still_leads_to_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sock");
        for is_removed in [false, true] {
            let original = std::os::unix::net::UnixListener::bind(&path);
            drop(original);
            std::fs::remove_file(&path).unwrap();
            let original = shape(libc::SOCK_STREAM).socket().unwrap();
            let address = Name::outside(path.to_str().unwrap().as_bytes()).address().unwrap();
            sys::sock::bind(original.as_fd(), &address).unwrap();
            if is_removed {
                std::fs::remove_file(&path).unwrap();
            }
            let name = sys::sock::local_address(original.as_fd()).unwrap();
            let copies = make_after(vec![original]);
            assert_eq!(sys::sock::local_address(copies[0].as_fd()).unwrap(), name);
            assert_eq!(path.exists(), !is_removed);
        }
    }

    #[test]
    fn a_path_that_is_something_else_on_the_destination_is_refused_before() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sock");
        let original = shape(libc::SOCK_STREAM).socket().unwrap();
        let address = Name::outside(path.to_str().unwrap().as_bytes()).address().unwrap();
        sys::sock::bind(original.as_fd(), &address).unwrap();
        let outline = crate::descriptors::trip::outline_own(&[&original]);
        drop(original);
        assert_eq!(crate::descriptors::check(&outline, &[]).unwrap(), []);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let refusals = crate::descriptors::check(&outline, &[]).unwrap();
        assert!(refusals[0].reason.contains("something else"), "{refusals:?}");
    }

    #[test]
    fn a_relative_name_through_a_link_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", home.path().join("link")).unwrap();
        let original = shape(libc::SOCK_STREAM).socket().unwrap();
        let directory = std::fs::File::open(home.path()).unwrap();
        let address = Name::outside(b"link/sock").address().unwrap();
        let bind = || sys::sock::bind(original.as_fd(), &address);
        sys::seclusion::run_in(directory, sys::seclusion::As::WorkingDirectory, bind).unwrap();
        let refusals = describe(&[&original], Rules::default()).refusals;
        assert!(refusals[0].reason.contains("cannot be bound again"), "{refusals:?}");
    }

    #[test]
    fn one_that_waits_outside_is_refused() {
        let name = Name::outside(format!("\0waits-{}", std::process::id()).as_bytes());
        let [listener, client] = [(); 2].map(|()| shape(libc::SOCK_STREAM).socket().unwrap());
        sys::sock::bind(listener.as_fd(), &name.address().unwrap()).unwrap();
        sys::sock::listen(listener.as_fd(), 1).unwrap();
        sys::sock::connect(client.as_fd(), &name.address().unwrap()).unwrap();
        let refusals = describe(&[&client], Rules::default()).refusals;
        assert!(refusals[0].reason.contains("waits for a process"), "{refusals:?}");
    }
}
