//! TCP_REPAIR: the inside of a connection, read and written as numbers without a packet.
//!
//! The switch silences nothing by itself: timers go on and what comes in is answered. It makes
//! close(2) silent, and takes what is written as already sent. Turning it off clears SO_REUSEADDR.

use crate::sys;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const ON: i32 = 1;
const OFF: i32 = 0;
const OFF_WITHOUT_A_WORD: i32 = -1;

fn set(socket: BorrowedFd<'_>, name: i32, value: i32) -> io::Result<()> {
    sys::sock::set_number(socket, libc::SOL_TCP, name, value)
}

pub(super) fn begin(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, ON)
}

/// TCP_REPAIR_OFF_NO_WP: nothing is sent.
pub(super) fn end(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, OFF_WITHOUT_A_WORD)
}

/// An established connection sends a window probe, by whose answer it knows how its peer stands.
pub(super) fn end_with_a_probe(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, OFF)
}

/// linux/tcp.h: TCP_RECV_QUEUE, TCP_SEND_QUEUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Received = 1,
    Sent = 2,
}

pub(super) fn select(socket: BorrowedFd<'_>, direction: Direction) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR_QUEUE, direction as i32)
}

/// The sequence number behind the last byte of the selected queue.
pub(super) fn sequence(socket: BorrowedFd<'_>) -> io::Result<u32> {
    sys::sock::read_number(socket, libc::SOL_TCP, libc::TCP_QUEUE_SEQ).map(i32::cast_unsigned)
}

pub(super) fn set_sequence(socket: BorrowedFd<'_>, sequence: u32) -> io::Result<()> {
    set(socket, libc::TCP_QUEUE_SEQ, sequence.cast_signed())
}

/// Up to so many bytes of the selected queue, which stay there.
pub(super) fn peek(socket: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Vec<u8>> {
    if bytes_max == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; bytes_max];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let length = recv(socket.as_raw_fd(), &mut bytes, flags)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Into the selected queue; a call takes 69632 bytes of those that were received, at most. Outside
/// of a repair these are bytes like any.
pub(super) fn fill(socket: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    while !bytes.is_empty() {
        let taken = send(socket.as_raw_fd(), bytes, flags)?;
        bytes = &bytes[taken..];
    }
    Ok(())
}

/// `struct tcp_repair_window`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Window {
    /// The segment with which the peer's window came last.
    #[prost(uint32, tag = "1")]
    pub(super) send_from: u32,
    #[prost(uint32, tag = "2")]
    pub(super) send_bytes: u32,
    #[prost(uint32, tag = "3")]
    pub(super) send_bytes_max: u32,
    #[prost(uint32, tag = "4")]
    pub(super) receive_bytes: u32,
    /// What was expected when our own window was said last.
    #[prost(uint32, tag = "5")]
    pub(super) receive_from: u32,
}

impl Window {
    pub(super) fn read(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut room = [0; 20];
        let name = libc::TCP_REPAIR_WINDOW;
        let filled = sys::sock::read_option(socket, libc::SOL_TCP, name, &mut room)?;
        if filled != room.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let word = |at: usize| {
            u32::from_ne_bytes([room[at], room[at + 1], room[at + 2], room[at + 3]])
        };
        Ok(Self {
            send_from: word(0),
            send_bytes: word(4),
            send_bytes_max: word(8),
            receive_bytes: word(12),
            receive_from: word(16),
        })
    }

    pub(super) fn set(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let words = [
            self.send_from,
            self.send_bytes,
            self.send_bytes_max,
            self.receive_bytes,
            self.receive_from,
        ];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        sys::sock::set_option(socket, libc::SOL_TCP, libc::TCP_REPAIR_WINDOW, &bytes)
    }

    /// As the kernel takes it (EINVAL otherwise), where `expected` is the next number to come. It may have
    /// another one itself: a segment that it has no room for closes the receive window (Linux 6.12 shows
    /// it), but what it said of the peer's window stays noted under its number, which is beyond then. With
    /// an earlier number the next segment is listened to all the same.
    pub(super) fn within(self, expected: u32) -> Self {
        let end = expected.wrapping_add(self.receive_bytes);
        let is_beyond = self.send_from.wrapping_sub(end).cast_signed() > 0;
        Self { send_from: if is_beyond { end } else { self.send_from }, ..self }
    }

    /// Nothing may be sent for now.
    pub(super) fn shut(self) -> Self {
        Self { send_bytes: 0, ..self }
    }
}

/// What both ends agreed upon when the connection was opened.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Agreement {
    /// The greatest segment that the peer takes.
    #[prost(uint32, tag = "1")]
    pub(super) segment_bytes_max: u32,
    /// Both windows are scaled: the peer's by the low half, ours by the high half.
    #[prost(uint32, optional, tag = "2")]
    pub(super) scales: Option<u32>,
    #[prost(bool, tag = "3")]
    pub(super) selective: bool,
    /// Our clock in the segments; odd when it counts microseconds (Linux 6.7).
    #[prost(uint32, optional, tag = "4")]
    pub(super) clock: Option<u32>,
}

/// The kinds of option in a TCP header: RFC 9293, RFC 7323, RFC 2018.
const SEGMENT: u32 = 2;
const SCALE: u32 = 3;
const SELECTIVE: u32 = 4;
const TIMESTAMP: u32 = 8;

impl Agreement {
    /// Before anything is written: the kernel takes no more then.
    pub(super) fn set(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut options = vec![(SEGMENT, self.segment_bytes_max)];
        options.extend(self.scales.map(|scales| (SCALE, scales)));
        options.extend(self.selective.then_some((SELECTIVE, 0)));
        options.extend(self.clock.map(|_| (TIMESTAMP, 0)));
        let words = options.into_iter().flat_map(|(option, value)| [option, value]);
        let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        sys::sock::set_option(socket, libc::SOL_TCP, libc::TCP_REPAIR_OPTIONS, &bytes)?;
        match self.clock {
            Some(clock) => set(socket, libc::TCP_TIMESTAMP, clock.cast_signed()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send_from(send_from: u32, receive_bytes: u32, expected: u32) -> u32 {
        Window { send_from, receive_bytes, ..Window::default() }.within(expected).send_from
    }

    #[test]
    fn a_window_that_was_told_by_a_segment_without_room_comes_under_the_last_number_there_is() {
        assert_eq!(send_from(936_108_056, 0, 936_107_928), 936_107_928);
        assert_eq!(send_from(1000, 500, 900), 1000);
        assert_eq!(send_from(1401, 500, 900), 1400);
        // Numbers begin again.
        assert_eq!(send_from(u32::MAX, 0, 5), u32::MAX);
        assert_eq!(send_from(5, 3, u32::MAX - 1), 1);
    }
}
