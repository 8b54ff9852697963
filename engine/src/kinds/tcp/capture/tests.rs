//! Of connections that change while they are looked at.

use super::*;
use crate::kinds::address::{self, Address};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};

fn connected() -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    (listener, client, server)
}

/// Closed with something unread in it: its peer gets a reset, on the loopback before this returns.
fn reset_by(client: TcpStream, server: &TcpStream) {
    io::Write::write_all(&mut &*server, b"unread").unwrap();
    drop(client);
    assert_eq!(state(server.as_fd()).unwrap(), State::Close);
}

/// Somebody waits there already, and there is no room for another.
fn full_listener() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    sys::sock::listen(listener.as_fd(), 0).unwrap();
    let waits = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, waits)
}

fn asking(from: u16, to: &TcpListener) -> OwnedFd {
    let at = |port| address::v4(Ipv4Addr::LOCALHOST, port);
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    let socket = sys::sock::socket(libc::AF_INET, kind, libc::IPPROTO_TCP).unwrap();
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
    sys::sock::bind(socket.as_fd(), &at(from)).unwrap();
    sys::sock::connect(socket.as_fd(), &at(to.local_addr().unwrap().port())).unwrap_err();
    assert_eq!(state(socket.as_fd()).unwrap(), State::SynSent);
    socket
}

#[test]
fn one_that_is_reset_while_it_is_looked_at_is_no_connection_any_more() {
    let (_listener, client, server) = connected();
    assert!(flow_between(server.as_fd()).unwrap().is_some());
    reset_by(client, &server);
    assert_eq!(flow_between(server.as_fd()).unwrap(), None);
    assert!(unopened(server.as_fd(), libc::AF_INET).unwrap().is_none());
    assert!(live(server.as_fd(), libc::AF_INET).unwrap().is_none());
}

#[test]
fn of_two_that_are_opened_from_one_address_each_has_its_own_peer() {
    let listeners = [full_listener(), full_listener()];
    let first = asking(0, &listeners[0].0);
    let from = Address(&sys::sock::local_address(first.as_fd()).unwrap()).port();
    let both = [first, asking(from, &listeners[1].0)];
    for (socket, (listener, _)) in both.iter().zip(&listeners) {
        let flow = flow_of(socket.as_fd()).unwrap().unwrap();
        assert_eq!(flow.peer, listener.local_addr().unwrap());
        assert_eq!(flow.local.port(), from);
    }
}
