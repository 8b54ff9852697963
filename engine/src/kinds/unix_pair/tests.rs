//! Round trips of connections, as they are made and as they are found.

mod flight;

use super::super::{OutsideUnix, Rules, SocketCall};
use super::*;
use crate::descriptors::trip::{
    capture_by, capture_own, copies_of, describe, make_after, make_changed, round_trip, us,
};
use crate::descriptors::check;
use crate::sys::ancillary::{self, Along};
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

fn set(socket: &OwnedFd, name: i32, value: i32) {
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, name, value).unwrap();
}

fn address(name: &str) -> Vec<u8> {
    Name::outside(name.as_bytes()).address().unwrap()
}

/// A listener, and a connection to it: (listener, client, accepted).
fn connected(name: &str, listens: &Maker, connects: &Maker) -> [OwnedFd; 3] {
    let [listener, client] = [(); 2].map(|()| shape(libc::SOCK_STREAM).socket().unwrap());
    sys::sock::bind(listener.as_fd(), &address(name)).unwrap();
    let call = SocketCall::Listen { socket: listener.as_fd(), backlog: 3 };
    listens.make_outside(call).unwrap();
    let (socket, address) = (client.as_fd(), &*address(name));
    connects.make_outside(SocketCall::Connect { socket, address }).unwrap();
    let accepted = sys::sock::accept(listener.as_fd()).unwrap();
    [listener, client, accepted]
}

fn maker(uid: u32) -> Maker {
    Maker { pid: us(), uid, gid: uid, groups: vec![uid + 1] }
}

fn names(socket: &OwnedFd) -> (Vec<u8>, Option<Vec<u8>>) {
    let own = sys::sock::local_address(socket.as_fd()).unwrap();
    (own, sys::sock::peer_address(socket.as_fd()).unwrap())
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
fn an_end_whose_peer_was_closed_too_early_is_told_so() {
    let [one, two] = pair(libc::SOCK_STREAM);
    put(&two, b"never read");
    drop(one);
    let trip = round_trip(&[&two]);
    let copy = trip.take(0);
    let image: Image = trip.unchanged();
    assert!(image.ends[0].is_reset);
    let error = sys::sock::read_number(copy.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).unwrap();
    assert_eq!(error, libc::ECONNRESET);
}

#[test]
fn its_maker_is_not_us() {
    let call = SocketCall::Pair { kind: libc::SOCK_STREAM };
    let [one, two] = maker(1234).make_outside(call).unwrap().try_into().unwrap();
    let image: Image = round_trip(&[&one, &two]).unchanged();
    assert_eq!(image.ends[0].peer, maker(1234));
}

#[test]
fn options_and_buffers_come_back() {
    let [one, two] = pair(libc::SOCK_STREAM);
    for (name, value) in
        [(libc::SO_PASSCRED, 1), (libc::SO_SNDBUF, 30_000), (libc::SO_PEEK_OFF, 5)]
    {
        set(&one, name, value);
    }
    let image: Image = round_trip(&[&one, &two]).unchanged();
    assert_eq!(image.ends.iter().map(|end| end.options.set_count()).sum::<usize>(), 3);
}

#[test]
fn who_sent_a_message_is_told_again_if_he_is_in_the_tree() {
    let [one, two] = pair(libc::SOCK_SEQPACKET);
    put(&one, b"nobody asked");
    set(&two, libc::SO_PASSCRED, 1);
    for pid in [us(), 1] {
        let credentials = Some(ancillary::Credentials { pid, uid: 1234, gid: 5678 });
        let along = Along { credentials, ..Along::default() };
        ancillary::send(one.as_fd(), b"hello", along).unwrap();
    }
    let copies = copies_of(&capture_own(&[&one, &two]));
    let queue = queue::read(copies[1].as_fd(), libc::SOCK_SEQPACKET).unwrap();
    let senders: Vec<_> = queue.iter().map(|one| one.sender.map(|one| (one.pid, one.uid))).collect();
    assert_eq!(senders, [None, Some((us(), 1234)), None]);
}

#[test]
fn an_urgent_byte_stays_urgent() {
    let [one, two] = pair(libc::SOCK_STREAM);
    put(&one, b"before");
    let along = Along { flags: libc::MSG_OOB, ..Along::default() };
    ancillary::send(one.as_fd(), b"!", along).unwrap();
    put(&one, b"after");
    let trip = round_trip(&[&one, &two]);
    let copy = trip.take(1);
    let _: Image = trip.unchanged();
    let mut room = [0; 9];
    assert_eq!(recv(copy.as_raw_fd(), &mut room, MsgFlags::MSG_OOB).unwrap(), 1);
    assert_eq!((room[0], &*got(&copy), &*got(&copy)), (b'!', &b"before"[..], &b"after"[..]));
}

#[test]
fn both_ends_of_an_accepted_connection_keep_their_names_and_makers() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("server").to_str().unwrap().to_owned();
    let hidden = format!("\0server-{}", us());
    for name in [path, hidden] {
        let [listener, client, accepted] = connected(&name, &maker(1111), &maker(2222));
        put(&client, b"request");
        let before = [names(&client), names(&accepted)];
        let copies = make_after(vec![listener, client, accepted]);
        assert_eq!([names(&copies[1]), names(&copies[2])], before, "{name:?}");
        assert_eq!(got(&copies[2]), b"request");
        assert_eq!(Maker::seen_by(copies[1].as_fd()).unwrap(), maker(1111));
        assert_eq!(Maker::seen_by(copies[2].as_fd()).unwrap(), maker(2222));
        // The next client finds the listener by the name.
        let next = shape(libc::SOCK_STREAM).socket().unwrap();
        sys::sock::connect(next.as_fd(), &address(&name)).unwrap();
        sys::sock::accept(copies[0].as_fd()).unwrap();
    }
}

#[test]
fn a_connection_outlives_its_listener_and_the_path() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("server");
    let [listener, client, accepted] =
        connected(path.to_str().unwrap(), &maker(1), &maker(1));
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    let before = [names(&client), names(&accepted)];
    let copies = make_after(vec![client, accepted]);
    assert_eq!([names(&copies[0]), names(&copies[1])], before);
    assert!(!path.exists());
}

#[test]
fn a_peer_outside_of_the_tree_is_refused_or_closed_or_found_again() {
    let name = format!("\0outside-{}", us());
    let [listener, client, accepted] = connected(&name, &maker(0), &maker(0));
    let rules = |outside_unix| Rules { outside_unix, ..Rules::default() };
    for (fd, rule, refusals, notes) in [
        (&client, OutsideUnix::Auto, 1, 0),
        (&client, OutsideUnix::Refuse, 1, 0),
        (&client, OutsideUnix::Reconnect, 0, 1),
        (&client, OutsideUnix::Close, 0, 1),
        // Who has accepted it cannot connect it again.
        (&accepted, OutsideUnix::Reconnect, 1, 0),
    ] {
        let found = describe(&[fd], rules(rule));
        assert_eq!((found.refusals.len(), found.notes.len()), (refusals, notes), "{rule:?}");
    }
    put(&accepted, b"rest");
    let closed = round_trip(&[&client]).take(0);
    assert_eq!((&*got(&closed), &*got(&closed)), (&b"rest"[..], &b""[..]));

    let image = capture_by(&[&client], rules(OutsideUnix::Reconnect)).unwrap();
    assert_eq!(check(&image, &[]).unwrap(), []);
    let again = copies_of(&image).remove(0);
    let served = sys::sock::accept(listener.as_fd()).unwrap();
    put(&again, b"once more");
    assert_eq!(got(&served), b"once more");
    drop((listener, accepted, served));
    assert_eq!(check(&image, &[]).unwrap().len(), 1);
}

#[test]
fn hostile_pairs_are_errors() {
    let [one, two] = pair(libc::SOCK_STREAM);
    put(&one, b"x");
    let good = capture_own(&[&one, &two]);
    let with = |change: &dyn Fn(&mut Image)| make_changed(&good, change);
    with(&|_| ()).unwrap();
    let cases: [&dyn Fn(&mut Image); 7] = [
        &|pair| pair.kind = libc::SOCK_RAW,
        &|pair| pair.ends.clear(),
        &|pair| pair.ends.push(End::default()),
        &|pair| drop(pair.ends.pop()),
        &|pair| pair.ends[0].peer.groups = vec![0; (1 << 16) + 1],
        &|pair| pair.ends[0].queued = vec![flying(99)],
        &|pair| pair.ends[0].name = Some(Name::default()),
    ];
    for (number, change) in cases.into_iter().enumerate() {
        assert!(with(change).is_err(), "case {number}");
    }
}

fn flying(description: u32) -> Queued {
    Queued { bytes: b"x".to_vec(), descriptions: vec![description], ..Queued::default() }
}
