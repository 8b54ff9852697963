//! Descriptors in flight, in queues of queues.

use super::{got, pair, put};
use crate::descriptors::trip::{capture_by, capture_own, copies_of, us};
use crate::kinds::Rules;
use crate::sys;
use crate::sys::ancillary::{self, Along};
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

fn send_flying(socket: &OwnedFd, text: &[u8], flight: &[&OwnedFd]) {
    let flight: Vec<_> = flight.iter().map(|fd| fd.as_fd()).collect();
    let along = Along { descriptors: &flight, ..Along::default() };
    ancillary::send(socket.as_fd(), text, along).unwrap();
}

fn received(socket: &OwnedFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut room = [0; 100];
    let peeked = ancillary::peek(socket.as_fd(), &mut room).unwrap();
    recv(socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT).unwrap();
    (room[..peeked.length].to_vec(), peeked.descriptors)
}

#[test]
fn descriptors_in_flight_arrive_where_they_were_going() {
    let [one, two] = pair(libc::SOCK_STREAM);
    let file = OwnedFd::from(std::fs::File::open("/etc/passwd").unwrap());
    send_flying(&one, b"known and unknown", &[&one, &file]);
    drop(file);
    put(&one, b"plain");
    let copies = copies_of(&capture_own(&[&one, &two]));
    let (text, flight) = received(&copies[1]);
    assert_eq!((&*text, flight.len()), (&b"known and unknown"[..], 2));
    let here = |fd: &OwnedFd| (us(), fd.as_raw_fd());
    let same = sys::fd::compare_files(here(&flight[0]), here(&copies[0])).unwrap();
    assert!(same.is_eq());
    let path = std::fs::read_link(format!("/proc/self/fd/{}", flight[1].as_raw_fd())).unwrap();
    assert_eq!(path.to_str(), Some("/etc/passwd"));
    assert_eq!(got(&copies[1]), b"plain");
}

#[test]
fn a_socket_in_flight_brings_its_own_queue() {
    let [one, two] = pair(libc::SOCK_SEQPACKET);
    let [inner, outer] = pair(libc::SOCK_DGRAM);
    let [deep, deeper] = pair(libc::SOCK_STREAM);
    put(&deeper, b"at the bottom");
    send_flying(&outer, b"nested", &[&deep]);
    send_flying(&one, b"first", &[&inner, &outer]);
    drop((inner, outer, deep, deeper));
    let copies = copies_of(&capture_own(&[&one, &two]));
    let (text, flight) = received(&copies[1]);
    assert_eq!((&*text, flight.len()), (&b"first"[..], 2));
    let (text, flight) = received(&flight[0]);
    assert_eq!((&*text, flight.len()), (&b"nested"[..], 1));
    assert_eq!(got(&flight[0]), b"at the bottom");
}

#[test]
fn what_cannot_be_moved_cannot_be_moved_in_flight() {
    let [one, two] = pair(libc::SOCK_STREAM);
    for flies in [
        OwnedFd::from(std::fs::File::open("/proc/self/ns/net").unwrap()),
        sys::fd::epoll().unwrap(),
    ] {
        send_flying(&one, b"x", &[&flies]);
        drop(flies);
        let error = capture_by(&[&one, &two], Rules::default()).unwrap_err();
        let carrier = format!("in flight to fd {} of process {}", two.as_raw_fd(), us());
        assert!(error.to_string().contains(&carrier), "{error}");
        received(&two);
    }
}
