//! Round trips of datagram sockets with names, and between them.

use super::super::{OutsideUnix, Rules};
use super::*;
use crate::descriptors::trip::{
    capture_by, capture_own, copies_of, describe, make_after, make_changed, round_trip, us,
};
use crate::descriptors::check;
use crate::sys::sock;
use nix::sys::socket::{MsgFlags, recv, send};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;

fn bound(name: &str) -> UnixDatagram {
    let socket = shape(libc::SOCK_DGRAM).socket().unwrap();
    sock::bind(socket.as_fd(), &address(name)).unwrap();
    socket.into()
}

fn address(name: &str) -> Vec<u8> {
    Name::outside(name.as_bytes()).address().unwrap()
}

fn send_to(socket: &UnixDatagram, name: &str, text: &[u8]) {
    let along = crate::sys::ancillary::Along { to: Some(&address(name)), ..Default::default() };
    crate::sys::ancillary::send(socket.as_fd(), text, along).unwrap();
}

/// The next message and its sender's name.
fn next(socket: &OwnedFd) -> (Vec<u8>, Vec<u8>) {
    let mut room = [0; 100];
    let peeked = crate::sys::ancillary::peek(socket.as_fd(), &mut room).unwrap();
    recv(socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT).unwrap();
    let name = Name::outside(peeked.sender.get(2..).unwrap_or_default());
    (room[..peeked.length].to_vec(), name.shown().into_bytes())
}

fn hidden(name: &str) -> String {
    format!("\0{name}-{}", us())
}

#[test]
fn comes_back_unbound() {
    let original = shape(libc::SOCK_DGRAM).socket().unwrap();
    let image: Image = round_trip(&[&original]).unchanged();
    assert_eq!((image.name, image.peer), (None, None));
}

#[test]
fn several_senders_stay_connected_to_one_and_its_queue_knows_them() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (server, named) = (bound(&path("server")), bound(&path("named")));
    let nameless = UnixDatagram::unbound().unwrap();
    let closed = bound(&hidden("closed"));
    for client in [&named, &nameless] {
        client.connect(path("server")).unwrap();
        client.send(b"connected").unwrap();
    }
    send_to(&closed, &path("server"), b"and gone");
    drop(closed);

    let copies = make_after(vec![server.into(), named.into(), nameless.into()]);
    assert_eq!(next(&copies[0]), (b"connected".to_vec(), path("named").into_bytes()));
    assert_eq!(next(&copies[0]), (b"connected".to_vec(), b"".to_vec()));
    let gone = hidden("closed").replace('\0', "@").into_bytes();
    assert_eq!(next(&copies[0]), (b"and gone".to_vec(), gone));
    for client in &copies[1..] {
        send(client.as_raw_fd(), b"goes on", MsgFlags::empty()).unwrap();
        assert_eq!(next(&copies[0]).0, b"goes on");
    }
}

#[test]
fn two_that_are_connected_to_each_other_by_name_stay_so() {
    let names = [hidden("one"), hidden("two")];
    let [one, two] = [bound(&names[0]), bound(&names[1])];
    sock::connect(one.as_fd(), &address(&names[1])).unwrap();
    sock::connect(two.as_fd(), &address(&names[0])).unwrap();
    one.send(b"for two").unwrap();
    let copies = make_after(vec![one.into(), two.into()]);
    assert_eq!(next(&copies[1]).0, b"for two");
    for (from, to) in [(0, 1), (1, 0)] {
        send(copies[from].as_raw_fd(), b"goes on", MsgFlags::empty()).unwrap();
        assert_eq!(next(&copies[to]).0, b"goes on");
    }
}

#[test]
fn a_peer_whose_path_was_removed_is_still_the_peer() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("server");
    let server = bound(path.to_str().unwrap());
    let client = UnixDatagram::unbound().unwrap();
    client.connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let copies = make_after(vec![server.into(), client.into()]);
    send(copies[1].as_raw_fd(), b"hello", MsgFlags::empty()).unwrap();
    assert_eq!(next(&copies[0]).0, b"hello");
    assert!(!path.exists());
}

#[test]
fn the_log_of_the_destination_is_found_by_its_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let log = bound(path.to_str().unwrap());
    let client = UnixDatagram::unbound().unwrap();
    client.connect(&path).unwrap();
    let found = describe(&[&client], Rules::default());
    assert_eq!((found.refusals.len(), found.notes.len()), (0, 1), "{found:?}");
    let refuse = Rules { outside_unix: OutsideUnix::Refuse, ..Rules::default() };
    assert_eq!(describe(&[&client], refuse).refusals.len(), 1);

    let image = capture_by(&[&client], Rules::default()).unwrap();
    assert_eq!(check(&image, &[]).unwrap(), []);
    assert_eq!(crate::descriptors::paths(&image, &image.objects[0]).unwrap().len(), 1);
    // The other host has a log of its own.
    drop(log);
    assert_eq!(check(&image, &[]).unwrap().len(), 1);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(check(&image, &[]).unwrap().len(), 1);
    let log = bound(path.to_str().unwrap());
    send(copies_of(&image)[0].as_raw_fd(), b"a line", MsgFlags::empty()).unwrap();
    assert_eq!(next(&log.into()).0, b"a line");
}

#[test]
fn who_may_not_write_to_a_socket_is_not_connected_to_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let _log = bound(path.to_str().unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let address = address(path.to_str().unwrap());
    let client = shape(libc::SOCK_DGRAM).socket().unwrap();
    let stranger = Maker { pid: us(), uid: 1234, gid: 1234, groups: Vec::new() };
    let call = SocketCall::Reconnect { socket: client.as_fd(), address: &address };
    let error = stranger.make_outside(call).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
}

#[test]
fn one_that_is_closed_finds_nobody() {
    let name = hidden("outside");
    let _outside = bound(&name);
    let client = UnixDatagram::unbound().unwrap();
    sock::connect(client.as_fd(), &address(&name)).unwrap();
    let copy = round_trip(&[&client]).take(0);
    let error = send(copy.as_raw_fd(), b"x", MsgFlags::empty()).unwrap_err();
    assert_eq!(error, nix::Error::ECONNREFUSED);
}

#[test]
fn hostile_datagram_sockets_are_errors() {
    let name = hidden("hostile");
    let socket = bound(&name);
    send_to(&socket, &name, b"to myself");
    let good = capture_own(&[&socket]);
    drop(socket);
    let with = |change: &dyn Fn(&mut Image)| make_changed(&good, change);
    with(&|_| ()).unwrap();
    let cases: [&dyn Fn(&mut Image); 5] = [
        &|one| one.peer = Some(99),
        &|one| one.name = None,
        &|one| one.queued[0].descriptions = vec![99],
        &|one| one.queued[0].name = vec![1; 200],
        &|one| one.outside = Some(Name::outside(b"/nonexistent/log")),
    ];
    for (number, change) in cases.into_iter().enumerate() {
        let with_maker = |one: &mut Image| {
            change(one);
            one.connects = Some(Maker { pid: us(), ..Maker::default() });
        };
        assert!(with(&with_maker).is_err(), "case {number}");
    }
}

#[test]
fn one_that_is_connected_to_a_socket_which_has_turned_to_another_is_refused() {
    let names = ["hears-one", "the-one"].map(hidden);
    let [turned, other] = [0, 1].map(|at| bound(&names[at]));
    let follower = UnixDatagram::unbound().unwrap();
    sock::connect(follower.as_fd(), &address(&names[0])).unwrap();
    assert_eq!(describe(&[&follower, &turned, &other], Rules::default()).refusals, []);
    sock::connect(turned.as_fd(), &address(&names[1])).unwrap();
    let refusals = describe(&[&follower, &turned, &other], Rules::default()).refusals;
    assert!(refusals[0].reason.contains("hears another one alone"), "{refusals:?}");
    assert_eq!(refusals.len(), 1);
}
