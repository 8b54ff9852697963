use super::super::Owner;
use super::*;
use crate::descriptors::trip::{capture_by, capture_own, describe, look, round_trip};
use crate::descriptors::waiting;
use crate::kinds::Rules;
use std::net::{SocketAddr, UdpSocket};

fn shared(address: &str) -> UdpSocket {
    let any = UdpSocket::bind(address).unwrap();
    let address = sys::sock::local_address(any.as_fd()).unwrap();
    drop(any);
    let domain = if address.len() < 24 { libc::AF_INET } else { libc::AF_INET6 };
    let socket = shape(domain).unwrap().socket().unwrap();
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).unwrap();
    sys::sock::bind(socket.as_fd(), &address).unwrap();
    socket.into()
}

#[test]
fn comes_back_bound_and_receives() {
    let original = shared("127.0.0.1:0");
    let trip = round_trip(&[&original]);
    let copy = UdpSocket::from(trip.take(0));
    let _: Image = trip.unchanged();
    let address = original.local_addr().unwrap();
    drop(original);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", address).unwrap();
    let mut room = [0; 9];
    assert_eq!(copy.recv(&mut room).unwrap(), 5);
}

#[test]
fn comes_back_connected_on_ipv6() {
    let peer = UdpSocket::bind("[::1]:0").unwrap();
    let original = shared("[::1]:0");
    original.connect(peer.local_addr().unwrap()).unwrap();
    let trip = round_trip(&[&original]);
    UdpSocket::from(trip.take(0)).send(b"hello").unwrap();
    let _: Image = trip.unchanged();
    assert_eq!(peer.recv(&mut [0; 9]).unwrap(), 5);
}

#[test]
fn comes_back_unbound() {
    let original = shape(libc::AF_INET).unwrap().socket().unwrap();
    let image: Image = round_trip(&[&original]).unchanged();
    assert_eq!((image.address.len(), image.peer.len()), (0, 0));
}

#[test]
fn a_client_keeps_its_port_and_takes_the_address_of_this_host() {
    let peer = address::v4([127, 0, 0, 1].into(), 9);
    let elsewhere = address::v4([192, 0, 2, 7].into(), 45_678);
    let image =
        Image { domain: libc::AF_INET, address: elsewhere, peer, ..Image::default() };
    let made = UdpSocket::from(make(&image, &[]).unwrap());
    assert_eq!(made.local_addr().unwrap().to_string(), "127.0.0.1:45678");
    let server = Image { peer: Vec::new(), ..image };
    assert_eq!(Udp::check(&server, &[], Ground { owner: Owner { pid: 1, fd: 3 }, coming: &[] }).len(), 1);
}


fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut room = vec![0; 1 << 16];
    socket.set_nonblocking(true).unwrap();
    let (length, sender) = socket.recv_from(&mut room).unwrap();
    room.truncate(length);
    (room, sender)
}

/// What is queued goes with it: sizes and senders, and what stays behind is as it was.
fn keeps_its_queue(receiver: &UdpSocket, sender: &str) {
    let senders = [sender; 3].map(|sender| UdpSocket::bind(sender).unwrap());
    let contents: [Vec<u8>; 3] = [b"first".to_vec(), Vec::new(), vec![7; 60_000]];
    for (content, sender) in contents.iter().zip(&senders) {
        let mut to = receiver.local_addr().unwrap();
        to.set_ip(to.ip().to_canonical());
        sender.send_to(content, to).unwrap();
    }
    let trip = round_trip(&[receiver]);
    let copy = UdpSocket::from(trip.take(0));
    assert_eq!(copy.local_addr().unwrap(), receiver.local_addr().unwrap());
    for socket in [&copy, receiver] {
        for (content, sender) in contents.iter().zip(&senders) {
            let mut from = receive(socket);
            from.1.set_ip(from.1.ip().to_canonical());
            assert_eq!(from, (content.clone(), sender.local_addr().unwrap()));
        }
    }
}

#[test]
fn keeps_its_queue_with_sizes_and_senders() {
    keeps_its_queue(&shared("127.0.0.1:0"), "127.0.0.1:0");
    keeps_its_queue(&shared("[::1]:0"), "[::1]:0");
}

#[test]
fn keeps_datagrams_of_ipv4_on_a_socket_of_ipv6() {
    keeps_its_queue(&shared("[::ffff:127.0.0.1]:0"), "127.0.0.1:0");
}

/// The queue of one socket at an address that is not here, from somebody far away.
fn far(domain: i32) -> Image {
    let (address, sender, to) = match domain {
        libc::AF_INET6 => ("::", "2001:db8::9", "2001:db8::7"),
        _ => ("0.0.0.0", "198.51.100.9", "192.0.2.7"),
    };
    let bytes = |ip: &str, port| address::of(ip.parse().unwrap(), port);
    let to = match to.parse().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let queued = vec![Datagram::sample(bytes(sender, 5353), to)];
    Image { domain, address: bytes(address, 45_679), queued, ..Image::default() }
}

#[test]
fn a_datagram_between_addresses_that_are_not_here_comes_back_with_both() {
    for domain in [libc::AF_INET, libc::AF_INET6] {
        let image = far(domain);
        let made = make(&image, &[]).unwrap();
        assert_eq!(datagrams::read(made.as_fd(), domain).unwrap(), image.queued);
        // Looked at twice, and the options by which it was asked are as they were.
        assert_eq!(datagrams::read(made.as_fd(), domain).unwrap(), image.queued);
        let options = Options::read(made.as_fd(), shape(domain).unwrap()).unwrap();
        assert_eq!(options, Options::default());
    }
}

#[test]
fn a_queue_of_many_small_datagrams_is_kept_and_its_buffer_is_as_before() {
    let original = shared("127.0.0.1:0");
    for number in 0..200_u32 {
        let to = original.local_addr().unwrap();
        original.send_to(&number.to_ne_bytes(), to).unwrap();
    }
    let trip = round_trip(&[&original]);
    let image: Image = trip.unchanged();
    assert_eq!(image.queued.len(), 200);
    let copy = UdpSocket::from(trip.take(0));
    let size = |socket: &UdpSocket| {
        sys::sock::read_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap()
    };
    assert_eq!(size(&copy), size(&original));
    for number in 0..200_u32 {
        assert_eq!(receive(&copy).0, number.to_ne_bytes());
    }
}

#[test]
fn datagrams_that_were_joined_come_back_one_by_one() {
    let original = shared("127.0.0.1:0");
    sys::sock::set_number(original.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sys::sock::set_number(sender.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 1000).unwrap();
    sender.send_to(&[7; 2500], original.local_addr().unwrap()).unwrap();
    let copy = UdpSocket::from(round_trip(&[&original]).take(0));
    assert_eq!([1000, 1000, 500], [(); 3].map(|()| receive(&copy).0.len()));
    assert_eq!(receive(&original).0.len(), 2500);
}

#[test]
fn a_filter_judges_what_comes_and_not_what_was_queued() {
    let original = shared("127.0.0.1:0");
    let address = original.local_addr().unwrap();
    original.send_to(b"before", address).unwrap();
    // ret 0: nothing passes.
    sys::filter::attach(original.as_fd(), &[6, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let trip = round_trip(&[&original]);
    let copy = UdpSocket::from(trip.take(0));
    drop(original);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"after", address).unwrap();
    assert_eq!(receive(&copy).0, b"before");
    assert_eq!(copy.recv(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_datagram_in_the_making_is_waited_for_until_it_is_sent() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let peer = UdpSocket::bind(address).unwrap();
        let original = shared(address);
        let waits = || waits_for(&original);
        let to = sys::sock::local_address(peer.as_fd()).unwrap();
        assert!(!waits());
        sys::datagram::send_to(original.as_fd(), b"to", libc::MSG_MORE, &to).unwrap();
        assert_eq!((waits(), waits()), (true, true));
        assert_eq!(describe(&[&original], Rules::default()).refusals, []);
        sys::datagram::send_to(original.as_fd(), b"gether", 0, &to).unwrap();
        assert!(!waits());
        assert_eq!(receive(&peer).0, b"together");
        sys::sock::connect(original.as_fd(), &to).unwrap();
        assert!(!waits());
        sys::sock::set_number(original.as_fd(), libc::SOL_UDP, libc::UDP_CORK, 1).unwrap();
        original.send(b"half").unwrap();
        assert!(waits());
    }
}

/// Said of it, and where it is not heeded the capture fails.
fn waits_for(socket: &UdpSocket) -> bool {
    let rules = Rules::default();
    let waits = waiting(&look(&[socket]), &rules).unwrap().is_some_and(|(_, wait)| wait.is_vital);
    assert_eq!(capture_by(&[socket], rules).is_err(), waits);
    waits
}

#[test]
fn one_that_is_corked_and_empty_comes_back_corked() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let original = shared("127.0.0.1:0");
    original.connect(peer.local_addr().unwrap()).unwrap();
    let cork = |socket: &UdpSocket, value| {
        sys::sock::set_number(socket.as_fd(), libc::SOL_UDP, libc::UDP_CORK, value).unwrap();
    };
    cork(&original, 1);
    assert!(!waits_for(&original));
    let copy = UdpSocket::from(round_trip(&[&original]).take(0));
    copy.send(b"to").unwrap();
    copy.send(b"gether").unwrap();
    cork(&copy, 0);
    assert_eq!(receive(&peer).0, b"together");
}

#[test]
fn errors_that_are_queued_are_noted() {
    let original = shared("127.0.0.1:0");
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(describe(&[&original], Rules::default()).notes.len(), 0);
    sys::sock::set_number(original.as_fd(), libc::SOL_IP, libc::IP_RECVERR, 1).unwrap();
    original.send_to(b"x", nobody).unwrap();
    assert_eq!(describe(&[&original], Rules::default()).notes.len(), 1);
}

#[test]
fn groups_are_joined_again_with_their_senders() {
    let original = shared("0.0.0.0:0");
    let joined = |group: [u8; 4], includes, senders: &[[u8; 4]]| {
        let senders = senders.iter().map(|one| one.to_vec()).collect();
        Membership::of("lo", group.to_vec(), includes, senders)
    };
    let groups = vec![
        joined([233, 252, 0, 1], false, &[]),
        joined([233, 252, 0, 2], false, &[[192, 0, 2, 1], [192, 0, 2, 2]]),
        joined([233, 252, 0, 3], true, &[[192, 0, 2, 3]]),
    ];
    multicast::join(original.as_fd(), &groups).unwrap();
    let image: Image = round_trip(&[&original]).unchanged();
    assert_eq!(image.joined.len(), 3);
    assert!(groups.iter().all(|one| image.joined.contains(one)), "{:?}", image.joined);
    let other = shared("0.0.0.0:0");
    assert_eq!(round_trip(&[&other]).unchanged::<Image>().joined, []);
}

#[test]
fn groups_of_ipv6_are_joined_again_and_a_missing_device_is_refused_before() {
    let original = shared("[::]:0");
    let group = "ff05::4711".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    let on = |device| vec![Membership::of(device, group.clone(), false, Vec::new())];
    multicast::join(original.as_fd(), &on("lo")).unwrap();
    let image: Image = round_trip(&[&original]).unchanged();
    assert_eq!(image.joined, on("lo"));
    drop(original);
    let at = Ground { owner: Owner { pid: 1, fd: 3 }, coming: &[] };
    assert_eq!(Udp::check(&image, &[], at), []);
    let image = Image { joined: on("nowhere0"), ..image };
    assert!(Udp::check(&image, &[], at)[0].reason.contains("nowhere0"));
}

#[test]
fn a_queue_that_means_harm_is_lost_and_harms_nobody() {
    let image = far(libc::AF_INET);
    for (sender, to) in [(vec![9], vec![1; 4]), (vec![0; 16], vec![1; 5]), (Vec::new(), Vec::new())] {
        let queued = vec![Datagram::sample(sender, to)];
        let made = make(&Image { queued, ..image.clone() }, &[]).unwrap();
        assert_eq!(datagrams::read(made.as_fd(), libc::AF_INET).unwrap(), []);
    }
}

#[test]
fn an_outline_has_no_queue() {
    let original = shared("127.0.0.1:0");
    original.send_to(b"to myself", original.local_addr().unwrap()).unwrap();
    let outline = crate::descriptors::trip::outline_own(&[&original]);
    let image: Image = prost::Message::decode(&*outline.objects[0].bytes).unwrap();
    assert_eq!(image.queued, []);
    let image: Image = prost::Message::decode(&*capture_own(&[&original]).objects[0].bytes).unwrap();
    assert_eq!(image.queued.len(), 1);
}

#[test]
fn each_of_a_group_that_shares_a_port_keeps_its_own_queue() {
    let first = shared("127.0.0.1:0");
    let address = sys::sock::local_address(first.as_fd()).unwrap();
    let second = shape(libc::AF_INET).unwrap().socket().unwrap();
    sys::sock::set_number(second.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).unwrap();
    sys::sock::bind(second.as_fd(), &address).unwrap();
    for number in 0..32_u8 {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(&[number], first.local_addr().unwrap()).unwrap();
    }
    // The kernel shares them out by a hash over the senders.
    let image: Image = round_trip(&[&first, &second]).unchanged();
    assert!((1..32).contains(&image.queued.len()), "{}", image.queued.len());
}
