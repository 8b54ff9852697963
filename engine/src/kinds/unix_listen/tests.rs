//! Round trips of listeners, alone and with those that wait.

use super::super::Rules;
use super::*;
use crate::descriptors::trip::{
    capture_by, capture_own, copies_of, describe, look, make_after, make_changed, us,
};
use crate::descriptors::{check, waiting};
use crate::sys::sock;
use nix::sys::socket::{MsgFlags, accept, recv, send};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

fn socket(kind: i32) -> OwnedFd {
    shape(kind).socket().unwrap()
}

fn address(name: &str) -> Vec<u8> {
    Name::outside(name.as_bytes()).address().unwrap()
}

fn listening(kind: i32, name: &str, backlog: i32) -> OwnedFd {
    let listener = socket(kind);
    sock::bind(listener.as_fd(), &address(name)).unwrap();
    sock::listen(listener.as_fd(), backlog).unwrap();
    listener
}

fn client_of(kind: i32, name: &str) -> OwnedFd {
    let client = socket(kind);
    sock::connect(client.as_fd(), &address(name)).unwrap();
    client
}

fn hidden(name: &str) -> String {
    format!("\0{name}-{}", us())
}

fn decoded(listener: &OwnedFd) -> Image {
    Image::decode(&*capture_own(&[listener]).objects[0].bytes).unwrap()
}

#[test]
fn comes_back_with_its_path_its_owner_and_its_backlog() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("server");
    for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
        let listener = listening(kind, path.to_str().unwrap(), 17);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
        std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
        let before = decoded(&listener);
        assert_eq!(before.backlog, 17);
        let copies = make_after(vec![listener]);
        assert_eq!(decoded(&copies[0]), before);
        let file = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o620, 1234, 5678));
        client_of(kind, path.to_str().unwrap());
        sock::accept(copies[0].as_fd()).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn an_autobound_name_comes_back_exactly() {
    let listener = socket(libc::SOCK_STREAM);
    sock::bind(listener.as_fd(), &1u16.to_ne_bytes()).unwrap();
    sock::listen(listener.as_fd(), 1).unwrap();
    let name = sock::local_address(listener.as_fd()).unwrap();
    let copies = make_after(vec![listener]);
    assert_eq!(sock::local_address(copies[0].as_fd()).unwrap(), name);
}

#[test]
fn who_waits_is_accepted_afterwards_in_turn() {
    let name = hidden("waits");
    let listener = listening(libc::SOCK_STREAM, &name, 5);
    let clients = [client_of(libc::SOCK_STREAM, &name), client_of(libc::SOCK_STREAM, &name)];
    // Less than what waits already.
    sock::listen(listener.as_fd(), 0).unwrap();
    let [first, second] = clients;
    // The order of the descriptors is not the order of the queue.
    let copies = make_after(vec![second, listener, first]);
    send(copies[2].as_raw_fd(), b"first", MsgFlags::empty()).unwrap();
    send(copies[0].as_raw_fd(), b"second", MsgFlags::empty()).unwrap();
    for text in [&b"first"[..], b"second"] {
        let accepted = sock::accept(copies[1].as_fd()).unwrap();
        let mut room = [0; 9];
        let length = recv(accepted.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT).unwrap();
        assert_eq!(&room[..length], text);
        assert_eq!(Maker::seen_by(accepted.as_fd()).unwrap(), Maker::of_process(us()).unwrap());
    }
    assert_eq!(decoded(&copies[1]).backlog, 0);
}

#[test]
fn who_has_sent_something_is_waited_for_until_it_is_accepted() {
    let (name, rules) = (hidden("early"), Rules::default());
    let listener = listening(libc::SOCK_STREAM, &name, 5);
    let client = client_of(libc::SOCK_STREAM, &name);
    let look = || look(&[&listener, &client]);
    assert_eq!(waiting(&look(), &rules).unwrap(), None);
    send(client.as_raw_fd(), b"early", MsgFlags::empty()).unwrap();
    let before = look();
    let (_, wait) = waiting(&before, &rules).unwrap().unwrap();
    assert!(wait.is_vital && wait.why.contains("before it was accepted"), "{wait:?}");
    let found = describe(&[&listener, &client], rules);
    assert_eq!((found.refusals.len(), found.notes.len()), (0, 1));
    assert!(capture_by(&[&listener, &client], rules).is_err());
    let accepted = accept(listener.as_raw_fd()).unwrap();
    assert_eq!(waiting(&look(), &rules).unwrap(), None, "a frozen tree is looked at anew");
    recv(accepted, &mut [0; 9], MsgFlags::empty()).unwrap();
    assert_eq!(waiting(&before, &rules).unwrap(), None, "it was read");
    nix::unistd::close(accepted).unwrap();
}

#[test]
fn strangers_that_wait_are_refused_or_closed() {
    let name = hidden("strangers");
    let listener = listening(libc::SOCK_STREAM, &name, 5);
    let _stranger = client_of(libc::SOCK_STREAM, &name);
    drop(client_of(libc::SOCK_STREAM, &name));
    let refusals = describe(&[&listener], Rules::default()).refusals;
    assert!(refusals[0].reason.contains("2 connections"), "{refusals:?}");
    let close = Rules { outside_unix: OutsideUnix::Close, ..Rules::default() };
    let found = describe(&[&listener], close);
    assert_eq!((found.refusals.len(), found.notes.len()), (0, 1));
    assert_eq!(decoded(&listener).waiting, []);
}

#[test]
fn a_name_that_is_taken_is_refused_before() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("server").to_str().unwrap().to_owned();
    for name in [path, hidden("taken")] {
        let listener = listening(libc::SOCK_STREAM, &name, 1);
        let image = capture_own(&[&listener]);
        assert_eq!(check(&image, &[]).unwrap().len(), 1, "{name:?}");
        drop(listener);
        assert_eq!(check(&image, &[]).unwrap(), [], "{name:?}");
    }
}

#[test]
fn who_listens_is_told_to_clients() {
    let name = hidden("maker");
    let listener = socket(libc::SOCK_STREAM);
    sock::bind(listener.as_fd(), &address(&name)).unwrap();
    let maker = Maker { pid: us(), uid: 1234, gid: 5678, groups: vec![9] };
    let call = SocketCall::Listen { socket: listener.as_fd(), backlog: 1 };
    maker.make_outside(call).unwrap();
    let _copies = make_after(vec![listener]);
    let client = client_of(libc::SOCK_STREAM, &name);
    assert_eq!(Maker::seen_by(client.as_fd()).unwrap(), maker);
}

#[test]
fn hostile_listeners_are_errors() {
    let name = hidden("hostile");
    let listener = listening(libc::SOCK_STREAM, &name, 1);
    let good = capture_own(&[&listener]);
    drop(listener);
    let with = |change: &dyn Fn(&mut Image)| make_changed(&good, change);
    with(&|_| ()).unwrap();
    let waiting = |description| vec![Waiting { description, connects: Maker::default() }];
    let cases: [&dyn Fn(&mut Image); 4] = [
        &|one| one.kind = libc::SOCK_DGRAM,
        &|one| one.name = Name::default(),
        &|one| one.waiting = waiting(99),
        // Itself.
        &|one| one.waiting = waiting(0),
    ];
    for (number, change) in cases.into_iter().enumerate() {
        assert!(with(change).is_err(), "case {number}");
    }
    copies_of(&good);
}
