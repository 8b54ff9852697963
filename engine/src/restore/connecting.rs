//! A connect(2) in which a thread was stopped, and which was answered before the tree was captured.
//!
//! At the source it would return now. Here its socket was made as one that is connected, to which a
//! call that is issued again is wrong (EISCONN of connect(2)).

use crate::sys;
use std::os::fd::AsFd as _;

/// TCP_SYN_SENT and TCP_CLOSE of include/net/tcp_states.h.
const SYN_SENT: u8 = 2;
const CLOSE: u8 = 7;

/// What the call has come to, on this socket of a process that was made here; `None` when it has to
/// wait, and for every socket but those of TCP.
pub(super) fn result(pid: i32, fd: i32) -> Option<i64> {
    let process = sys::fd::pidfd_open(pid, 0).ok()?;
    let socket = sys::fd::pidfd_getfd(process.as_fd(), fd).ok()?;
    let mut state = [0];
    sys::sock::read_option(socket.as_fd(), libc::SOL_TCP, libc::TCP_INFO, &mut state).ok()?;
    match state[0] {
        SYN_SENT => None,
        CLOSE => {
            let error = sys::sock::read_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR);
            error.ok().filter(|&error| error != 0).map(|error| -i64::from(error))
        }
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn of(socket: &impl AsRawFd) -> Option<i64> {
        result(std::process::id().cast_signed(), socket.as_raw_fd())
    }

    #[test]
    fn one_that_is_connected_has_ended_well_and_a_new_one_has_to_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(of(&client), Some(0));
        let new = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        assert_eq!(of(&new), None);
        assert_eq!(of(&UnixStream::pair().unwrap().0), None);
    }

    #[test]
    fn one_that_was_reset_has_ended_with_that_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Closed with connections that nobody has accepted.
        drop(listener);
        sys::fd::poll(client.as_fd(), libc::POLLIN, 5_000).unwrap();
        assert_eq!(of(&client), Some(-i64::from(libc::ECONNRESET)));
    }
}
