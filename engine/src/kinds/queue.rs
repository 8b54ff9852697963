//! What is queued in a unix socket: looked at without taking it, and put into another.

use crate::sys;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// How much a queue may hold before we take it for an endless one.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Also the greatest message that is carried.
const PEEK_BYTES: usize = 1 << 20;

/// The messages in their order; a stream has them cut anywhere. `messages` is false for a stream.
pub(super) fn peek(socket: BorrowedFd<'_>, messages: bool) -> io::Result<Vec<Vec<u8>>> {
    if sys::fd::poll(socket, libc::POLLIN, 0)? & libc::POLLIN == 0 {
        return Ok(Vec::new());
    }
    // The program may use the offset itself: it is put back whatever happens.
    let offset = sys::sock::read_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF)?;
    sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)?;
    let peeked = walk(socket, messages);
    sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)?;
    peeked
}

fn walk(socket: BorrowedFd<'_>, messages: bool) -> io::Result<Vec<Vec<u8>>> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    let mut buffer = vec![0; PEEK_BYTES];
    let (mut queue, mut total) = (Vec::new(), 0);
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, flags) {
            Err(nix::Error::EAGAIN) => return Ok(queue),
            Ok(0) if !messages || is_at_end(socket)? => return Ok(queue),
            Ok(length) => {
                let message = buffer.get(..length).ok_or(io::ErrorKind::FileTooLarge)?;
                total += length;
                queue.push(message.to_vec());
            }
            Err(error) => return Err(error.into()),
        }
        if total > QUEUED_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 MiB queued"));
        }
    }
}

/// An empty message and the end look the same to recv(2); only the end stays readable for ever,
/// with nothing to be counted.
fn is_at_end(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::fd::poll(socket, libc::POLLRDHUP, 0)? & libc::POLLRDHUP != 0)
}

/// Sends what the other end had queued. A queue of small messages counts more than its bytes, so
/// the sender's buffer is made large for as long as it takes.
pub(super) fn refill(sender: BorrowedFd<'_>, queue: &[Vec<u8>]) -> io::Result<()> {
    if queue.is_empty() {
        return Ok(());
    }
    let doubled = sys::sock::read_number(sender, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
    let roomy = i32::try_from(QUEUED_BYTES_MAX).unwrap_or(i32::MAX);
    sys::sock::set_number(sender, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, roomy)?;
    let sent = queue.iter().try_for_each(|message| send_whole(sender, message));
    sys::sock::set_number(sender, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, doubled / 2)?;
    sent
}

/// An empty message is sent once; a stream may take less than the whole.
fn send_whole(sender: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let mut sent = 0;
    loop {
        sent += send(sender.as_raw_fd(), &message[sent..], flags)?;
        if sent >= message.len() {
            return Ok(());
        }
    }
}
