mod gates;
mod ownership;

use super::super::capture::{Capture, Segment};
use super::super::hosts::Host;
use super::*;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long enough for two retransmissions, which begin after 200 ms.
const GAP: Duration = Duration::from_millis(750);
const LIMIT: Duration = Duration::from_secs(10);

/// A server's host and a client's, joined by a cable.
struct Town {
    server: Host,
    client: Host,
}

impl Town {
    fn new() -> Option<Self> {
        let town = Self { server: Host::new()?, client: Host::new()? };
        town.server.cable("s0", &town.client, "c0");
        for (host, device, last) in [(&town.server, "s0", 1), (&town.client, "c0", 2)] {
            host.address(&format!("192.0.2.{last}"), 24, device);
            host.address(&format!("2001:db8::{last}"), 64, device);
        }
        Some(town)
    }

    fn listen(&self, at: &str) -> TcpListener {
        self.server.run(|| TcpListener::bind(at).unwrap())
    }

    fn connect(&self, to: SocketAddr) -> TcpStream {
        let stream = self.client.run(|| TcpStream::connect_timeout(&to, LIMIT).unwrap());
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn pair(&self, listener: &TcpListener, at: SocketAddr) -> (TcpStream, TcpStream) {
        let client = self.connect(at);
        let (server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        (server, client)
    }

    fn lock(&self) -> Lock {
        self.server.run(|| Lock::open().unwrap())
    }

    fn watch_client(&self) -> Capture {
        self.client.run(Capture::new)
    }
}

fn at(ip: &str, listener: &TcpListener) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), listener.local_addr().unwrap().port())
}

fn flow(of: &TcpStream) -> Flow {
    Flow { local: of.local_addr().unwrap(), peer: of.peer_addr().unwrap() }
}

fn has_nothing(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let nothing =
        matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    nothing
}

fn says(mut stream: &TcpStream, text: &str, mut to: &TcpStream) {
    stream.write_all(text.as_bytes()).unwrap();
    let mut room = vec![0; text.len()];
    to.read_exact(&mut room).unwrap();
    assert_eq!(room, text.as_bytes());
}

fn hears(mut stream: &TcpStream, text: &str) {
    let mut room = vec![0; text.len()];
    stream.read_exact(&mut room).unwrap();
    assert_eq!(room, text.as_bytes());
}

/// The segments of a connection, as its client's device saw them: what came, and what went.
fn seen(capture: &Capture, client: &TcpStream) -> (Vec<Segment>, Vec<Segment>) {
    let port = client.local_addr().unwrap().port();
    let all = capture.segments().into_iter().filter(|one| one.to == port || one.from == port);
    all.partition(|segment| segment.to == port)
}

fn is_silent_while_held_and_goes_on_after(listen: &str, ip: &str) {
    let Some(town) = Town::new() else { return };
    let listener = town.listen(listen);
    let (server, client) = town.pair(&listener, at(ip, &listener));
    says(&client, "before", &server);
    let mut lock = town.lock();
    lock.hold(&[flow(&server)]).unwrap();
    let capture = town.watch_client();
    (&client).write_all(b"to the server").unwrap();
    (&server).write_all(b"to the client").unwrap();
    // It is said again while nobody answers.
    let (mut count, start) = (0, Instant::now());
    while count < 2 || start.elapsed() < GAP {
        let (came, went) = seen(&capture, &client);
        assert_eq!(came, []);
        count += went.len();
        assert!(start.elapsed() < LIMIT, "{count}");
        sleep(GAP / 10);
    }
    assert!(has_nothing(&server) && has_nothing(&client));
    lock.clear().unwrap();
    hears(&server, "to the server");
    hears(&client, "to the client");
    says(&client, "after", &server);
}

#[test]
fn a_connection_is_silent_while_held_and_goes_on_after() {
    is_silent_while_held_and_goes_on_after("0.0.0.0:0", "192.0.2.1");
}

#[test]
fn so_is_one_of_ipv6() {
    is_silent_while_held_and_goes_on_after("[::]:0", "2001:db8::1");
}

#[test]
fn so_is_one_with_a_mapped_address() {
    is_silent_while_held_and_goes_on_after("[::]:0", "192.0.2.1");
}

#[test]
fn other_connections_to_the_same_port_go_on() {
    let Some(town) = Town::new() else { return };
    let listener = town.listen("[::]:0");
    let (held, _client) = town.pair(&listener, at("192.0.2.1", &listener));
    let (other, its_client) = town.pair(&listener, at("192.0.2.1", &listener));
    let mut lock = town.lock();
    lock.hold(&[flow(&held)]).unwrap();
    says(&other, "there", &its_client);
    says(&its_client, "and back", &other);
    let (new, its_client) = town.pair(&listener, at("2001:db8::1", &listener));
    says(&its_client, "new", &new);
}

/// Ends it as a program that is killed, with a reset.
fn abort(stream: TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &at_once).unwrap();
}

/// Resets by the program's end, and by what comes for a connection that is no more.
#[test]
fn a_connection_that_is_gone_is_not_reset() {
    let Some(town) = Town::new() else { return };
    for ip in ["192.0.2.1", "2001:db8::1"] {
        let listener = town.listen("[::]:0");
        let (server, client) = town.pair(&listener, at(ip, &listener));
        let mut lock = town.lock();
        lock.hold(&[flow(&server)]).unwrap();
        let capture = town.watch_client();
        abort(server);
        (&client).write_all(b"is anybody there?").unwrap();
        sleep(GAP);
        assert_eq!(seen(&capture, &client).0, []);
        lock.clear().unwrap();
        let error = (&client).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// The kernel would forward what comes for it, or say where else to ask.
#[test]
fn an_address_that_has_moved_is_silent_on_a_router() {
    let Some(town) = Town::new() else { return };
    town.server.set("net/ipv4/ip_forward", "1");
    town.server.set("net/ipv6/conf/all/forwarding", "1");
    for (moved, prefix) in [("192.0.2.9", 24), ("2001:db8::9", 64)] {
        town.server.address(moved, prefix, "s0");
        let listener = town.listen("[::]:0");
        let (server, client) = town.pair(&listener, at(moved, &listener));
        let mut lock = town.lock();
        lock.hold(&[flow(&server)]).unwrap();
        town.server.remove_address(moved, prefix, "s0");
        // What meets a socket is not forwarded, whatever its address.
        abort(server);
        let capture = town.watch_client();
        (&client).write_all(b"is anybody there?").unwrap();
        sleep(GAP);
        assert_eq!(capture.frames().iter().filter(|frame| is_about(frame, moved)).count(), 0);
        // And without the lock it is not silent, so there was something to be seen.
        lock.clear().unwrap();
        let start = Instant::now();
        while !capture.frames().iter().any(|frame| is_about(frame, moved)) {
            assert!(start.elapsed() < LIMIT, "{moved}");
            sleep(Duration::from_millis(20));
        }
    }
}

/// Whether a frame is one of ICMP that has this address in the packet that it is about, or a TCP
/// segment from it.
fn is_about(frame: &[u8], address: &str) -> bool {
    let address: std::net::IpAddr = address.parse().unwrap();
    let bytes = match address {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let from = if address.is_ipv4() { 26 } else { 22 };
    let Some((protocol, content)) = super::super::capture::payload(frame) else { return false };
    match i32::from(protocol) {
        libc::IPPROTO_TCP => frame[from..].starts_with(&bytes),
        libc::IPPROTO_ICMP => matches!(content[0], 3 | 5 | 11) && names(content, &bytes),
        libc::IPPROTO_ICMPV6 => matches!(content[0], 1 | 3 | 137) && names(content, &bytes),
        _ => false,
    }
}

fn names(content: &[u8], address: &[u8]) -> bool {
    content.windows(address.len()).any(|part| part == address)
}

#[test]
fn both_ends_on_one_host_are_silent_as_well() {
    let Some(town) = Town::new() else { return };
    for ip in ["127.0.0.1", "::1"] {
        let listener = town.listen("[::]:0");
        let to = at(ip, &listener);
        let client = town.server.run(|| TcpStream::connect_timeout(&to, LIMIT).unwrap());
        let (server, _) = listener.accept().unwrap();
        for held in [vec![flow(&server), flow(&client)], vec![flow(&server)], vec![flow(&client)]] {
            let mut lock = town.lock();
            lock.hold(&held).unwrap();
            (&client).write_all(b"there").unwrap();
            (&server).write_all(b"back").unwrap();
            sleep(GAP / 3);
            assert!(has_nothing(&server) && has_nothing(&client), "{held:?}");
            lock.clear().unwrap();
            hears(&server, "there");
            hears(&client, "back");
        }
    }
}

#[test]
fn holding_and_releasing_twice_is_the_same_as_once() {
    let Some(town) = Town::new() else { return };
    let listener = town.listen("[::]:0");
    let (server, client) = town.pair(&listener, at("192.0.2.1", &listener));
    let mut lock = town.lock();
    lock.hold(&[flow(&server)]).unwrap();
    lock.hold(&[flow(&server), flow(&server)]).unwrap();
    lock.clear().unwrap();
    lock.clear().unwrap();
    says(&client, "goes on", &server);
}

#[test]
fn thousands_are_held_by_one_batch() {
    let Some(host) = Host::new() else { return };
    let flow = |number: u16| Flow {
        local: SocketAddr::new([192, 0, 2, 1].into(), 80),
        peer: SocketAddr::new("2001:db8::2".parse().unwrap(), number + 1),
    };
    let flows: Vec<_> = (0..5000)
        .map(|number| Flow {
            local: SocketAddr::new("2001:db8::1".parse().unwrap(), 80),
            ..flow(number)
        })
        .collect();
    let mut lock = host.run(|| Lock::open().unwrap());
    assert!(lock.hold(&[flow(1)]).is_err());
    lock.hold(&flows).unwrap();
    lock.clear().unwrap();
}
