//! What is queued in a unix socket: looked at without taking it, and put into another.
//!
//! The kernel hands out a message as often as it is looked at (MSG_PEEK with SO_PEEK_OFF), with
//! what came along: descriptors, credentials, the sender's name. Only an empty message is shown
//! once, so a queue is walked once in a freeze.

mod refill;
mod urgent;

use crate::sys;
use crate::sys::ancillary::{self, Credentials, Peeked};
pub(super) use refill::Refill;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How much a queue may hold before we take it for an endless one.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Also the greatest message that is carried.
const PEEK_BYTES: usize = 1 << 20;

/// A message as it travels.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Queued {
    #[prost(bytes = "vec", tag = "1")]
    pub bytes: Vec<u8>,
    /// The ids of the descriptions in flight with it.
    #[prost(uint32, repeated, tag = "2")]
    pub descriptions: Vec<u32>,
    #[prost(message, optional, tag = "3")]
    pub sender: Option<Sender>,
    /// The name of the socket that sent it, as `sockaddr`; empty when it has none.
    #[prost(bytes = "vec", tag = "4")]
    pub name: Vec<u8>,
    /// One byte of a stream that was sent out of its turn (MSG_OOB).
    #[prost(bool, tag = "5")]
    pub urgent: bool,
}

/// SCM_CREDENTIALS of unix(7).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Sender {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    #[prost(uint32, tag = "3")]
    pub gid: u32,
}

/// A message with our own duplicates of what is in flight with it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) queued: Queued,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Message {
    fn of(peeked: Peeked, buffer: &[u8]) -> io::Result<Self> {
        let too_long = "a message of more than 1 MiB is queued";
        let bytes = buffer
            .get(..peeked.length)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, too_long))?;
        let sender =
            peeked.credentials.map(|Credentials { pid, uid, gid }| Sender { pid, uid, gid });
        let name = if peeked.sender.len() > 2 { peeked.sender } else { Vec::new() };
        let queued = Queued { bytes: bytes.to_vec(), sender, name, ..Queued::default() };
        Ok(Self { queued, descriptors: peeked.descriptors })
    }
}

/// The messages in their order. A stream has them cut where the kernel tells them apart: before
/// and behind descriptors, between senders, around an urgent byte.
pub(crate) fn peek(socket: BorrowedFd<'_>, kind: i32) -> io::Result<Vec<Message>> {
    if kind != libc::SOCK_STREAM {
        let is_empty = sys::fd::poll(socket, libc::POLLIN, 0)? & libc::POLLIN == 0;
        return if is_empty { Ok(Vec::new()) } else { with_options(socket, walk_messages) };
    }
    let urgent = urgent::byte(socket)?;
    let inline = Set::new(socket, libc::SO_OOBINLINE, 1)?;
    let parts = with_options(socket, walk_stream)?;
    let parts = match urgent {
        Some(_) => urgent::tell_apart(socket, parts)?,
        None => parts,
    };
    drop(inline);
    Ok(parts)
}

/// With nothing in flight: [`Queued`] as it is.
pub(super) fn read(socket: BorrowedFd<'_>, kind: i32) -> io::Result<Vec<Queued>> {
    let messages = peek(socket, kind)?;
    if messages.iter().any(|message| !message.descriptors.is_empty()) {
        return Err(io::Error::other("descriptors came to be in flight meanwhile"));
    }
    Ok(messages.into_iter().map(|message| message.queued).collect())
}

/// An option of a socket that is not ours, which is put back whatever happens.
#[derive(Debug)]
struct Set<'a> {
    socket: BorrowedFd<'a>,
    name: i32,
    before: i32,
}

impl<'a> Set<'a> {
    fn new(socket: BorrowedFd<'a>, name: i32, value: i32) -> io::Result<Self> {
        let before = sys::sock::read_number(socket, libc::SOL_SOCKET, name)?;
        let set = Self { socket, name, before };
        set.to(value)?;
        Ok(set)
    }

    fn to(&self, value: i32) -> io::Result<()> {
        sys::sock::set_number(self.socket, libc::SOL_SOCKET, self.name, value)
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        let _ = self.to(self.before);
    }
}

type Walk = fn(BorrowedFd<'_>, &Set<'_>) -> io::Result<Vec<Message>>;

fn with_options(socket: BorrowedFd<'_>, walk: Walk) -> io::Result<Vec<Message>> {
    let _credentials = Set::new(socket, libc::SO_PASSCRED, 1)?;
    let offset = Set::new(socket, libc::SO_PEEK_OFF, 0)?;
    walk(socket, &offset)
}

/// `None` when nothing is there.
fn next(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Peeked>> {
    match ancillary::peek(socket, buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // A datagram socket that was shut for reading.
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(None),
        peeked => peeked.map(Some),
    }
}

/// The kernel itself goes on from message to message.
fn walk_messages(socket: BorrowedFd<'_>, _: &Set<'_>) -> io::Result<Vec<Message>> {
    let mut buffer = vec![0; PEEK_BYTES];
    let (mut queue, mut total) = (Vec::new(), 0);
    while let Some(peeked) = next(socket, &mut buffer)? {
        if peeked.length == 0 && is_at_end(socket, &peeked)? {
            break;
        }
        total += peeked.length;
        bounded(total)?;
        queue.push(Message::of(peeked, &buffer)?);
    }
    Ok(queue)
}

fn bounded(total: usize) -> io::Result<()> {
    match total {
        0..=QUEUED_BYTES_MAX => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 MiB are queued")),
    }
}

/// An empty message and the end look the same; only the end stays readable for ever, and nothing
/// comes along with it.
fn is_at_end(socket: BorrowedFd<'_>, peeked: &Peeked) -> io::Result<bool> {
    let comes_alone = peeked.credentials.is_none() && peeked.descriptors.is_empty();
    Ok(comes_alone && sys::fd::poll(socket, libc::POLLRDHUP, 0)? & libc::POLLRDHUP != 0)
}

/// Not beyond its end: an error may wait there, and whoever meets it takes it.
fn walk_stream(socket: BorrowedFd<'_>, offset: &Set<'_>) -> io::Result<Vec<Message>> {
    let all = sys::fd::readable_bytes(socket)?;
    bounded(all)?;
    let mut buffer = vec![0; PEEK_BYTES.min(all)];
    let (mut queue, mut total) = (Vec::new(), 0);
    while total < all {
        offset.to(i32::try_from(total).unwrap_or(i32::MAX))?;
        let Some(peeked) = next(socket, &mut buffer)?.filter(|peeked| peeked.length > 0) else {
            return Err(io::Error::other("what was queued is gone"));
        };
        let peeked = without_descriptors_of_others(socket, offset, total, peeked)?;
        total += peeked.length;
        queue.push(Message::of(peeked, &buffer)?);
    }
    Ok(queue)
}

/// Bytes that came before descriptors are handed out together with them. They are cut off, so that
/// the next look begins with the message that the descriptors belong to.
fn without_descriptors_of_others(
    socket: BorrowedFd<'_>,
    offset: &Set<'_>,
    at: usize,
    peeked: Peeked,
) -> io::Result<Peeked> {
    if peeked.descriptors.is_empty() {
        return Ok(peeked);
    }
    offset.to(i32::try_from(at).unwrap_or(i32::MAX))?;
    // One byte less than up to its end: the message is not among those that have room.
    match ancillary::whole_parts(socket, &mut vec![0; peeked.length - 1])? {
        0 => Ok(peeked),
        before => Ok(Peeked { length: before, descriptors: Vec::new(), ..peeked }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ancillary::Along;
    use std::os::fd::AsFd as _;

    fn stream() -> [OwnedFd; 2] {
        sys::sock::pair(libc::AF_UNIX, libc::SOCK_STREAM).unwrap()
    }

    fn put(socket: &OwnedFd, bytes: &[u8], flight: &[BorrowedFd<'_>]) {
        let along = Along { descriptors: flight, ..Along::default() };
        ancillary::send(socket.as_fd(), bytes, along).unwrap();
    }

    fn shape(socket: &OwnedFd) -> Vec<(String, usize)> {
        let messages = peek(socket.as_fd(), libc::SOCK_STREAM).unwrap();
        let shape = |one: &Message| {
            (String::from_utf8(one.queued.bytes.clone()).unwrap(), one.descriptors.len())
        };
        messages.iter().map(shape).collect()
    }

    #[test]
    fn descriptors_stay_with_the_bytes_they_were_sent_with() {
        let [one, two] = stream();
        let flight = [one.as_fd(), two.as_fd()];
        put(&one, b"plain", &[]);
        put(&one, b"also", &[]);
        put(&one, b"two", &flight);
        put(&one, b"one", &flight[..1]);
        put(&one, b"rest", &[]);
        let parts = [("plainalso", 0), ("two", 2), ("one", 1), ("rest", 0)];
        let expected = parts.map(|(text, count)| (text.to_owned(), count));
        assert_eq!(shape(&two), expected);
        assert_eq!(shape(&two), expected, "and are there again");
    }

    #[test]
    fn messages_of_different_senders_are_not_glued() {
        let [one, two] = stream();
        sys::sock::set_number(two.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1).unwrap();
        let pid = std::process::id().cast_signed();
        for uid in [0, 1234, 1234] {
            let credentials = Some(Credentials { pid, uid, gid: 0 });
            let along = Along { credentials, ..Along::default() };
            ancillary::send(one.as_fd(), b"x", along).unwrap();
        }
        let messages = peek(two.as_fd(), libc::SOCK_STREAM).unwrap();
        let senders: Vec<_> = messages
            .iter()
            .map(|one| (one.queued.bytes.len(), one.queued.sender.map(|sender| sender.uid)))
            .collect();
        assert_eq!(senders, [(1, Some(0)), (2, Some(1234))]);
    }

    #[test]
    fn what_was_sent_when_nobody_asked_has_no_sender() {
        let [one, two] = stream();
        put(&one, b"anonymous", &[]);
        let messages = peek(two.as_fd(), libc::SOCK_STREAM).unwrap();
        assert_eq!(messages[0].queued.sender, None);
        let passes = sys::sock::read_number(two.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED);
        assert_eq!(passes.unwrap(), 0);
    }
}
