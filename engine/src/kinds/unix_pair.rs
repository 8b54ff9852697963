//! Two unix sockets that are joined to each other, both in the tree, or one whose peer is closed.
//!
//! Sockets with a name, with a peer outside of the tree, or with descriptors in flight are refused.
//! Messages lose the credentials that travelled with them (SCM_CREDENTIALS): ours would be a lie.

use super::options::{Options, Shape};
use super::queue;
use super::{
    DescriptionImage, Findings, Kind, ObjectKey, Open, Place, Seen, SocketSeen, Tree, nonsense,
};
use crate::error::{Error, OnObject as _};
use crate::sys;
use nix::sys::socket::Shutdown;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

pub(super) struct Pair;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    #[prost(int32, tag = "1")]
    kind: i32,
    /// Indexed by role; one when the other end is closed.
    #[prost(message, repeated, tag = "2")]
    ends: Vec<End>,
    /// Who made the pair, as SO_PEERCRED tells both ends.
    #[prost(uint32, tag = "3")]
    uid: u32,
    #[prost(uint32, tag = "4")]
    gid: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct End {
    #[prost(bytes = "vec", repeated, tag = "1")]
    queued: Vec<Vec<u8>>,
    /// 1: receives nothing more; 2: sends nothing more.
    #[prost(uint32, tag = "2")]
    shutdown: u32,
    #[prost(message, required, tag = "3")]
    options: Options,
}

impl Kind for Pair {
    const NAME: &'static str = "unix socket pair";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        unix(seen).is_some_and(|(_, unix)| unix.peer.is_some())
    }

    fn key(seen: &Seen) -> ObjectKey {
        let peer = peer(seen);
        let first = if peer == 0 { seen.inode } else { peer.min(seen.inode) };
        ObjectKey::Named(format!("unix:{first}"))
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        for seen in of {
            if let Some((reason, advice)) = blocker(seen, of) {
                findings.refuse(seen.object(Self::NAME), reason, advice);
            }
        }
        let passes = |seen: &&&Seen| seen.steal().is_ok_and(|local| loses_credentials(&local));
        if let Some(seen) = of.iter().find(passes) {
            let text = "has messages queued, which lose their sender's credentials";
            findings.note(seen.object(Self::NAME), text);
        }
    }

    fn role(open: &Open<'_>) -> Result<u32, Error> {
        let peer = peer(open.seen);
        Ok(u32::from(peer != 0 && peer < open.seen.inode))
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let seen: Vec<_> = of.iter().map(|open| open.seen).collect();
        if let Some((reason, _)) = seen.iter().find_map(|one| blocker(one, &seen)) {
            return Err(Error::invalid("capture", seen[0].object(Self::NAME), reason));
        }
        let kind = seen[0].socket.as_ref().map_or(0, |socket| socket.kind);
        let mut by_role: Vec<_> = of.iter().collect();
        by_role.sort_by_key(|open| peer(open.seen) < open.seen.inode && peer(open.seen) != 0);
        let ends = by_role.into_iter().map(|open| read(open, kind)).collect::<Result<_, _>>()?;
        let (uid, gid) =
            credentials(of[0].local).on("ask for the maker of", || seen[0].object(Self::NAME))?;
        Ok(Image { kind, ends, uid, gid })
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let pair = make(image).on("make", || at.object(Self::NAME))?;
        let mut ends = pair.map(Some);
        let mut take = |one: &DescriptionImage| {
            ends.get_mut(one.role as usize)
                .filter(|_| (one.role as usize) < image.ends.len())
                .and_then(Option::take)
                .ok_or_else(|| nonsense(Self::NAME, "has an end twice, or none of that role"))
        };
        descriptions.iter().map(&mut take).collect()
    }
}

fn unix(seen: &Seen) -> Option<(&SocketSeen, &super::UnixSeen)> {
    let socket = seen.socket.as_ref()?;
    Some((socket, socket.unix.as_ref()?))
}

fn peer(seen: &Seen) -> u64 {
    unix(seen).and_then(|(_, unix)| unix.peer).unwrap_or(0)
}

/// Why this end cannot be moved, and what the operator can do.
fn blocker(seen: &Seen, of: &[&Seen]) -> Option<(String, &'static str)> {
    let peer = peer(seen);
    let name = unix(seen).map(|(_, unix)| &*unix.name).unwrap_or_default();
    let other = of.iter().find(|other| other.inode == peer);
    if !name.is_empty() {
        let name = String::from_utf8_lossy(name).replace('\0', "@");
        Some((format!("is connected under the name {name}"), "Let the program close it."))
    } else if peer != 0 && other.is_none() {
        Some(("is connected to a process outside of the tree".to_owned(), "Move both."))
    } else if other.is_some_and(|other| self::peer(other) != seen.inode) {
        Some(("sends to a socket that does not answer it".to_owned(), "Let it be closed."))
    } else if seen.field("scm_fds").is_some_and(|count| count != "0") {
        Some(("has descriptors in flight".to_owned(), "Try again when they are received."))
    } else {
        None
    }
}

fn loses_credentials(local: &OwnedFd) -> bool {
    let passes = sys::sock::read_number(local.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED);
    let queued = sys::fd::readable_bytes(local.as_fd());
    passes.is_ok_and(|on| on != 0) && queued.is_ok_and(|bytes| bytes > 0)
}

fn shape(kind: i32) -> Shape {
    Shape { domain: libc::AF_UNIX, kind, protocol: 0 }
}

fn read(open: &Open<'_>, kind: i32) -> Result<End, Error> {
    let object = || open.seen.object(Pair::NAME);
    let options = Options::read(open.local, shape(kind)).on("read the options of", object)?;
    let queued = queue::peek(open.local, kind != libc::SOCK_STREAM)
        .on("copy what is queued in", object)?;
    let shutdown = unix(open.seen).map_or(0, |(_, unix)| u32::from(unix.shutdown));
    // A closed peer shuts both ways by itself.
    let shutdown = if peer(open.seen) == 0 { 0 } else { shutdown };
    Ok(End { queued, shutdown, options })
}

/// SO_PEERCRED: `struct ucred`, pid, uid, gid.
fn credentials(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut room = [0; 12];
    sys::sock::read_option(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut room)?;
    let word = |at: usize| u32::from_ne_bytes([room[at], room[at + 1], room[at + 2], room[at + 3]]);
    Ok((word(4), word(8)))
}

fn make(image: &Image) -> io::Result<[OwnedFd; 2]> {
    let known = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET].contains(&image.kind);
    if !known || !(1..=2).contains(&image.ends.len()) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let pair = sys::sock::pair_as(libc::AF_UNIX, image.kind, image.uid, image.gid)?;
    for (role, end) in image.ends.iter().enumerate() {
        queue::refill(pair[1 - role].as_fd(), &end.queued)?;
    }
    for (socket, end) in pair.iter().zip(&image.ends) {
        end.options.apply(socket.as_fd(), shape(image.kind))?;
        shut(socket, end.shutdown)?;
    }
    Ok(pair)
}

fn shut(socket: &OwnedFd, shutdown: u32) -> io::Result<()> {
    let how = match shutdown {
        0 => return Ok(()),
        1 => Shutdown::Read,
        2 => Shutdown::Write,
        _ => Shutdown::Both,
    };
    Ok(nix::sys::socket::shutdown(socket.as_raw_fd(), how)?)
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};
    use nix::sys::socket::{MsgFlags, recv, send};

    fn put(socket: &OwnedFd, message: &[u8]) {
        send(socket.as_raw_fd(), message, MsgFlags::empty()).unwrap();
    }

    fn got(socket: &OwnedFd) -> Vec<u8> {
        let mut room = vec![0; 4096];
        let length = recv(socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT).unwrap();
        room[..length].to_vec()
    }

    fn pair(kind: i32) -> [OwnedFd; 2] {
        sys::sock::pair(libc::AF_UNIX, kind).unwrap()
    }

    #[test]
    fn a_stream_comes_back_with_its_bytes_both_ways() {
        let [one, two] = pair(libc::SOCK_STREAM);
        put(&one, b"for two");
        put(&two, b"for one");
        let trip = round_trip(&[&one, &two]);
        let (first, second) = (trip.take(0), trip.take(1));
        let _: Image = trip.unchanged();
        assert_eq!(got(&first), b"for one");
        assert_eq!(got(&second), b"for two");
        assert_eq!(got(&two), b"for two", "the source keeps its own");
        put(&first, b"goes on");
        assert_eq!(got(&second), b"goes on");
    }

    #[test]
    fn messages_stay_messages_also_empty_ones() {
        for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            let [one, two] = pair(kind);
            for message in [&b"one"[..], b"", b"three", b""] {
                put(&one, message);
            }
            let trip = round_trip(&[&one, &two]);
            let copy = trip.take(1);
            let _: Image = trip.unchanged();
            for message in [&b"one"[..], b"", b"three", b""] {
                assert_eq!(got(&copy), message);
            }
        }
    }

    #[test]
    fn a_queue_of_many_small_messages_fits_again() {
        let [one, two] = pair(libc::SOCK_SEQPACKET);
        let mut count = 0;
        while send(one.as_raw_fd(), b"x", MsgFlags::MSG_DONTWAIT).is_ok() {
            count += 1;
        }
        let image: Image = round_trip(&[&one, &two]).unchanged();
        assert_eq!(image.ends.iter().map(|end| end.queued.len()).sum::<usize>(), count);
    }

    #[test]
    fn what_is_shut_stays_shut() {
        let [one, two] = pair(libc::SOCK_STREAM);
        put(&one, b"last words");
        nix::sys::socket::shutdown(one.as_raw_fd(), Shutdown::Write).unwrap();
        let trip = round_trip(&[&one, &two]);
        let copy = trip.take(1);
        let _: Image = trip.unchanged();
        assert_eq!(got(&copy), b"last words");
        assert_eq!(got(&copy), b"");
    }

    #[test]
    fn an_end_whose_peer_is_closed_reads_the_rest_and_the_end() {
        let [one, two] = pair(libc::SOCK_STREAM);
        put(&one, b"rest");
        drop(one);
        let trip = round_trip(&[&two]);
        let copy = trip.take(0);
        let _: Image = trip.unchanged();
        assert_eq!(got(&copy), b"rest");
        assert_eq!(got(&copy), b"");
    }

    #[test]
    fn its_maker_is_not_us() {
        let [one, two] = sys::sock::pair_as(libc::AF_UNIX, libc::SOCK_STREAM, 1234, 5678).unwrap();
        let image: Image = round_trip(&[&one, &two]).unchanged();
        assert_eq!((image.uid, image.gid), (1234, 5678));
    }

    #[test]
    fn options_and_buffers_come_back() {
        let [one, two] = pair(libc::SOCK_STREAM);
        for (name, value) in [(libc::SO_PASSCRED, 1), (libc::SO_SNDBUF, 30_000)] {
            sys::sock::set_number(one.as_fd(), libc::SOL_SOCKET, name, value).unwrap();
        }
        let image: Image = round_trip(&[&one, &two]).unchanged();
        assert_eq!(image.ends.iter().map(|end| end.options.set_count()).sum::<usize>(), 2);
    }

    #[test]
    fn a_peer_outside_of_the_tree_is_refused() {
        let [one, _two] = pair(libc::SOCK_STREAM);
        assert_eq!(describe(&[&one], Rules::default()).refusals.len(), 1);
    }

    #[test]
    fn descriptors_in_flight_are_refused() {
        use nix::sys::socket::{ControlMessage, sendmsg};
        let [one, two] = pair(libc::SOCK_STREAM);
        let fds = [one.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let bytes = [io::IoSlice::new(b"x")];
        sendmsg::<()>(one.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).unwrap();
        let refusals = describe(&[&one, &two], Rules::default()).refusals;
        assert!(refusals[0].reason.contains("in flight"), "{refusals:?}");
    }
}
