use super::super::addresses::{Change, add, remove};
use super::super::capture::Capture;
use super::super::hosts::Host;
use super::*;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Far less than the half minute that it takes without a word, and enough for a busy machine.
const SOON: Duration = Duration::from_secs(3);
const PORT: u16 = 4711;

/// Two hosts and a client on one switch.
struct Link {
    hosts: [Host; 2],
    client: Host,
    /// Cables end where it ends.
    switch: Host,
}

impl Link {
    fn new() -> Option<Self> {
        let switch = Host::new()?;
        let link = Self { hosts: [Host::new()?, Host::new()?], client: Host::new()?, switch };
        let [one, other] = &link.hosts;
        for (host, port, last) in [(one, "p1", 1), (other, "p2", 2), (&link.client, "p3", 3)] {
            link.switch.cable(port, host, "e0");
            host.address(&format!("192.0.2.{last}"), 24, "e0");
            host.address(&format!("2001:db8::{last}"), 64, "e0");
        }
        link.switch.bridge("switch", &["p1", "p2", "p3"]);
        Some(link)
    }

    /// Sends to an address until a host hears it.
    fn reaches(&self, ip: IpAddr, host: &UdpSocket) -> Duration {
        let start = Instant::now();
        let any: IpAddr = if ip.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let client = self.client.run(|| UdpSocket::bind((any, 0)).unwrap());
        while start.elapsed() < Duration::from_secs(10) {
            // Nobody may be there for a moment.
            let _ = client.send_to(b"hello", SocketAddr::new(ip, PORT));
            if host.recv(&mut [0; 9]).is_ok() {
                return start.elapsed();
            }
        }
        panic!("{ip} was not reached");
    }
}

fn moves_there_and_back(text: &str) {
    let Some(link) = Link::new() else { return };
    let address: Address = text.parse().unwrap();
    let listen = |host: &Host| {
        let socket = host
            .run(|| UdpSocket::bind((if address.ip.is_ipv4() { "0.0.0.0" } else { "::" }, PORT)));
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        socket
    };
    let sockets = [listen(&link.hosts[0]), listen(&link.hosts[1])];
    link.hosts[0].run(|| add(&address).unwrap());
    link.reaches(address.ip, &sockets[0]);
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        link.hosts[from].run(|| assert_eq!(remove(&address).unwrap(), Change::Made));
        link.hosts[to].run(|| {
            assert_eq!(add(&address).unwrap(), Change::Made);
            announce(&address).unwrap();
        });
        let took = link.reaches(address.ip, &sockets[to]);
        assert!(took < SOON, "{text} was reached after {took:?}");
    }
}

#[test]
fn an_address_of_ipv4_is_reached_at_once_where_it_moved_and_back() {
    moves_there_and_back("192.0.2.9/24");
}

#[test]
fn so_is_one_of_ipv6() {
    moves_there_and_back("2001:db8::9/64");
}

#[test]
fn without_an_announcement_the_neighbour_keeps_asking_the_old_host() {
    let Some(link) = Link::new() else { return };
    let address: Address = "192.0.2.9/24".parse().unwrap();
    let socket = link.hosts[1].run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let before = link.hosts[0].run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    before.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    link.hosts[0].run(|| add(&address).unwrap());
    link.reaches(address.ip, &before);
    link.hosts[0].run(|| remove(&address).unwrap());
    link.hosts[1].run(|| add(&address).unwrap());
    let client = link.client.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    for _ in 0..100 {
        client.send_to(b"hello", SocketAddr::new(address.ip, PORT)).unwrap();
        assert!(socket.recv(&mut [0; 9]).is_err(), "then the other tests prove nothing");
    }
}

#[test]
fn where_nobody_listens_there_is_nothing_to_say() {
    let Some(host) = Host::new() else { return };
    host.device("d0");
    host.address("192.0.2.1", 24, "d0");
    host.address("198.51.100.1", 32, "lo");
    host.run(|| {
        let capture = Capture::new();
        announce(&"198.51.100.1/32".parse().unwrap()).unwrap();
        assert_eq!(arp_frames(&capture), 0);
        announce(&"192.0.2.1/24".parse().unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = 0;
        while seen < 2 && Instant::now() < deadline {
            seen += arp_frames(&capture);
        }
        assert_eq!(seen, 2, "one, seen at either end of the cable");
        let error = announce(&"192.0.2.7/24".parse().unwrap()).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    });
}

fn arp_frames(capture: &Capture) -> usize {
    capture.frames().iter().filter(|frame| frame[12..14] == [0x08, 0x06]).count()
}

/// As RFC 4443 counts it: over everything with the checksum in its place it is zero.
#[test]
fn the_checksum_makes_the_sum_zero() {
    let ip: Ipv6Addr = "2001:db8::9".parse().unwrap();
    for is_router in [false, true] {
        let frame = advertisement(ip, [2, 0, 0, 0, 0, 1], is_router);
        let (header, body) = (&frame[14..54], &frame[54..]);
        let (from, to) = (ip.into(), "ff02::1".parse().unwrap());
        let sent = Header { from, to, protocol: packet::ICMP_V6, hops: 255, class: 0 };
        assert_eq!(header, &sent.packet(body).unwrap()[..40]);
        assert_eq!(sent.checksum(body), 0);
        assert_eq!(body[4] & 0x80 != 0, is_router);
    }
}
