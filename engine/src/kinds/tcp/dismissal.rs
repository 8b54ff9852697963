//! The last word to the peer of a connection that does not go on: a reset.
//!
//! A connection is made again for this one packet, which has to have the number that the peer expects
//! next. Where it expects an earlier one, because something was lost on the way, it asks (RFC 5961, 3.2),
//! and the kernel answers for a connection that is not there any more.

use super::create;
use super::image::{Live, Opened};
use super::repair;
use crate::error::{Error, OnObject as _};
use crate::sys;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

pub(super) fn send(live: &Live, domain: i32, opened: &Opened) -> Result<(), Error> {
    let socket = create::bound(live, domain, &[])?;
    let object = || create::object(live);
    let live = Live { next: expected_there(live.next, opened), ..live.clone() };
    let nothing_queued = Opened {
        received: Vec::new(),
        sent: Vec::new(),
        unsent: Vec::new(),
        expected: opened.expected.wrapping_add(live.later.peer_finished.into()),
        ..opened.clone()
    };
    create::connect(socket.as_fd(), &live, &nothing_queued).on("connect", object)?;
    // In a repair it would be closed without a word.
    reset_at_close(socket.as_fd()).and_then(|()| repair::end(socket.as_fd())).on("end", object)
}

/// SO_LINGER on, with no time: close(2) sends a reset.
pub(super) fn reset_at_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    sys::sock::set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// What was never sent is not waited for; the end of what we have written counts as a byte.
fn expected_there(next: u32, opened: &Opened) -> u32 {
    let unsent = u32::try_from(opened.unsent.len()).unwrap_or(0);
    let finished = opened.we_finished && opened.unsent.is_empty();
    next.wrapping_sub(unsent).wrapping_add(finished.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_expects_what_follows_the_last_byte_that_was_sent() {
        let opened = |unsent: usize, we_finished| Opened {
            unsent: vec![0; unsent],
            we_finished,
            ..Opened::default()
        };
        assert_eq!(expected_there(100, &opened(0, false)), 100);
        assert_eq!(expected_there(100, &opened(30, false)), 70);
        assert_eq!(expected_there(100, &opened(0, true)), 101);
        assert_eq!(expected_there(100, &opened(30, true)), 70);
        assert_eq!(expected_there(5, &opened(30, false)), 5u32.wrapping_sub(30));
    }
}
