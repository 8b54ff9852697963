use super::super::capture::Capture;
use super::super::hosts::Host;
use super::super::lock::Lock;
use super::*;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

fn town() -> Option<(Host, Host)> {
    let (server, client) = (Host::new()?, Host::new()?);
    server.cable("s0", &client, "c0");
    for (host, device, last) in [(&server, "s0", 1), (&client, "c0", 2)] {
        host.address(&format!("192.0.2.{last}"), 24, device);
        host.address(&format!("2001:db8::{last}"), 64, device);
    }
    Some((server, client))
}

fn connected(server: &Host, client: &Host, at: &str) -> (TcpListener, TcpStream, TcpStream) {
    let listener = server.run(|| TcpListener::bind(at).unwrap());
    let to = listener.local_addr().unwrap();
    let there = client.run(|| TcpStream::connect_timeout(&to, LIMIT).unwrap());
    let here = listener.accept().unwrap().0;
    here.set_read_timeout(Some(LIMIT)).unwrap();
    (listener, here, there)
}

fn service(server: &Host) -> (TcpListener, Gate) {
    let listener = server.run(|| TcpListener::bind("192.0.2.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    (listener, Gate { address: None, port })
}

/// The gate, with somebody who hears who knocks.
fn shut(server: &Host, gate: Gate) -> (Lock, Knocks) {
    let mut lock = server.run(|| Lock::open().unwrap());
    lock.shut(&[gate]).unwrap();
    (lock, server.run(|| Knocks::listen(&[gate], &[]).unwrap()))
}

/// As the client's own host sees it.
fn from_there(flow: Flow) -> Flow {
    Flow { local: flow.peer, peer: flow.local }
}

/// Until that much of what is said has come. More than that may: what is not heard is said again.
fn gathers(knocks: &mut Knocks, content_bytes: usize) {
    let deadline = Instant::now() + LIMIT;
    while kept_bytes(knocks) < content_bytes {
        assert!(Instant::now() < deadline, "{} bytes", kept_bytes(knocks));
        sleep(Duration::from_millis(5));
        knocks.gather();
    }
}

fn who_asks(knocks: &mut Knocks) -> Flow {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(&asked) = knocks.newcomers.keys().next() {
            return asked;
        }
        assert!(Instant::now() < deadline, "nobody asks");
        sleep(Duration::from_millis(5));
        knocks.gather();
    }
}

fn kept_bytes(knocks: &Knocks) -> usize {
    knocks.kept.iter().map(Segment::content_bytes).sum()
}

#[test]
fn what_came_while_a_connection_was_held_is_heard_without_being_said_again() {
    for at in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let Some((server, client)) = town() else { return };
        let (_listener, mut here, mut there) = connected(&server, &client, at);
        let flow = Flow { local: here.local_addr().unwrap(), peer: here.peer_addr().unwrap() };
        let mut lock = server.run(|| Lock::open().unwrap());
        let mut knocks = server.run(|| Knocks::listen(&[], &[flow]).unwrap());
        there.write_all(b"heard").unwrap();
        here.read_exact(&mut [0; 5]).unwrap();
        knocks.held(&[flow]);
        lock.hold(&[flow]).unwrap();
        // More than a packet has room for, and less than is sent before the first answer.
        let said: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
        there.write_all(&said).unwrap();
        gathers(&mut knocks, said.len());
        // From here on the client says nothing again.
        let mut lock_there = client.run(|| Lock::open().unwrap());
        lock_there.hold(&[from_there(flow)]).unwrap();
        here.set_nonblocking(true).unwrap();
        assert_eq!(here.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        here.set_nonblocking(false).unwrap();
        lock.clear().unwrap();
        server.run(|| knocks.send_after().unwrap());
        let mut heard = vec![0; said.len()];
        here.read_exact(&mut heard).unwrap();
        assert_eq!(heard, said);
        lock_there.clear().unwrap();
        there.write_all(b"after").unwrap();
        here.read_exact(&mut [0; 5]).unwrap();
    }
}

#[test]
fn who_asked_at_a_shut_gate_is_answered_without_asking_again() {
    const ANSWER: u8 = 0x12;
    let Some((server, client)) = town() else { return };
    let (listener, gate) = service(&server);
    let to = listener.local_addr().unwrap();
    let (mut lock, mut knocks) = shut(&server, gate);
    let asking = client.run(|| std::thread::spawn(move || TcpStream::connect_timeout(&to, LIMIT)));
    let asked = who_asks(&mut knocks);
    // From here on the client does not ask again, and hears no answer.
    let mut lock_there = client.run(|| Lock::open().unwrap());
    lock_there.hold(&[from_there(asked)]).unwrap();
    knocks.held(&[]);
    let capture = client.run(Capture::new);
    lock.clear().unwrap();
    assert!(server.run(|| knocks.send_after().unwrap()) > 0);
    let deadline = Instant::now() + LIMIT;
    while !capture.segments().iter().any(|one| one.from == to.port() && one.flags == ANSWER) {
        assert!(Instant::now() < deadline, "nobody was answered");
        sleep(Duration::from_millis(5));
    }
    lock_there.clear().unwrap();
    asking.join().unwrap().unwrap();
}

#[test]
fn who_was_let_in_before_the_gate_was_shut_does_not_ask_again() {
    let Some((server, client)) = town() else { return };
    let (listener, gate) = service(&server);
    let to = listener.local_addr().unwrap();
    let mut knocks = server.run(|| Knocks::listen(&[gate], &[]).unwrap());
    drop(client.run(|| TcpStream::connect_timeout(&to, LIMIT).unwrap()));
    drop(listener.accept().unwrap());
    knocks.held(&[]);
    assert_eq!(server.run(|| knocks.send_after().unwrap()), 0);
}

/// As when the tree is let go once more, and stopped again a moment later.
#[test]
fn who_asked_at_a_shut_gate_is_remembered_by_whoever_listens_next() {
    let Some((server, client)) = town() else { return };
    let (listener, gate) = service(&server);
    let to = listener.local_addr().unwrap();
    let (mut lock, mut before) = shut(&server, gate);
    let asking = client.run(|| std::thread::spawn(move || TcpStream::connect_timeout(&to, LIMIT)));
    let asked = who_asks(&mut before);
    let mut knocks = server.run(|| Knocks::listen(&[gate], &[]).unwrap()).after(before);
    assert_eq!(knocks.newcomers.keys().collect::<Vec<_>>(), [&asked]);
    lock.clear().unwrap();
    asking.join().unwrap().unwrap();
    knocks.held(&[]);
    assert_eq!(knocks.newcomers.len(), 0, "he was let in");
}

#[test]
fn what_was_heard_and_what_is_of_others_is_not_sent() {
    let Some((server, client)) = town() else { return };
    let (_listener, mut here, mut there) = connected(&server, &client, "192.0.2.1:0");
    let flow = Flow { local: here.local_addr().unwrap(), peer: here.peer_addr().unwrap() };
    let mut knocks = server.run(|| Knocks::listen(&[], &[flow]).unwrap());
    there.write_all(b"heard").unwrap();
    here.read_exact(&mut [0; 5]).unwrap();
    knocks.held(&[]);
    there.write_all(b"not held").unwrap();
    here.read_exact(&mut [0; 8]).unwrap();
    assert_eq!(server.run(|| knocks.send_after().unwrap()), 0);
}

#[test]
fn what_is_no_segment_is_not_kept() {
    assert_eq!(Segment::read(&[]), None);
    for first in [0x45, 0x4f, 0x60, 0x00] {
        for length in [1, 19, 20, 39, 40, 59, 60, 80] {
            let mut packet = vec![0xff; length];
            packet[0] = first;
            // Cut off, a fragment, or a reset.
            assert_eq!(Segment::read(&packet), None, "{first:#x}, {length} bytes");
        }
    }
}
