use super::*;
use crate::sys::filter;

fn shape(domain: i32, kind: i32, protocol: i32) -> Shape {
    Shape { domain, kind, protocol }
}

fn udp(domain: i32) -> Shape {
    shape(domain, libc::SOCK_DGRAM, libc::IPPROTO_UDP)
}

fn tcp() -> Shape {
    shape(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP)
}

fn raw(domain: i32, protocol: i32) -> Shape {
    shape(domain, libc::SOCK_RAW, protocol)
}

fn copy_of(socket: &OwnedFd, shape: Shape) -> (Options, OwnedFd) {
    let options = Options::read(socket.as_fd(), shape).unwrap();
    let copy = options.socket(shape).unwrap();
    options.complete(copy.as_fd()).unwrap();
    assert_eq!(Options::read(copy.as_fd(), shape).unwrap(), options);
    (options, copy)
}

/// Sets each on a socket of its own, and looks for it on the copy.
fn come_back(shape: Shape, options: &[(i32, i32, &[u8])]) {
    for &(level, name, bytes) in options {
        let socket = shape.socket().unwrap();
        let set = sys::sock::set_option(socket.as_fd(), level, name, bytes);
        set.unwrap_or_else(|error| panic!("{level}:{name}: {error}"));
        let (options, copy) = copy_of(&socket, shape);
        assert!(options.has(level, name), "{level}:{name} is not in {options:?}");
        let read = |socket: &OwnedFd| {
            let mut room = vec![0; VALUE_BYTES_MAX];
            let filled = sys::sock::read_option(socket.as_fd(), level, name, &mut room).unwrap();
            room[..filled].to_vec()
        };
        assert_eq!(read(&copy), read(&socket), "{level}:{name}");
    }
}

const ON: &[u8] = &[1, 0, 0, 0];
const SEVEN: &[u8] = &[7, 0, 0, 0];
const LOOPBACK_IN_NETWORK_ORDER: &[u8] = &[0, 0, 0, 1];

#[test]
fn options_of_every_socket_come_back() {
    let numbers = [1, 36, 41, 43, 45, 46, 49, 69, 75, 82];
    let numbers = numbers.map(|name| (libc::SOL_SOCKET, name, ON));
    come_back(udp(libc::AF_INET), &numbers);
    come_back(
        udp(libc::AF_INET),
        &[
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo"),
            (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &(5_u64 << 33).to_ne_bytes()),
            (libc::SOL_SOCKET, libc::SO_TXTIME, &[1, 0, 0, 0, 2, 0, 0, 0]),
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &[0x10, 0, 0, 0, 0, 0, 0, 0]),
            (libc::SOL_SOCKET, 64, ON),
        ],
    );
}

#[test]
fn options_of_ip_come_back() {
    let switches = [6, 7, 8, 11, 12, 13, 15, 18, 19, 20, 21, 23, 25, 26];
    come_back(udp(libc::AF_INET), &switches.map(|name| (libc::SOL_IP, name, ON)));
    let range = (40_000_u32 | 40_100 << 16).to_ne_bytes();
    come_back(
        udp(libc::AF_INET),
        &[
            (libc::SOL_IP, libc::IP_OPTIONS, &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (libc::SOL_IP, libc::IP_MTU_DISCOVER, &[2, 0, 0, 0]),
            (libc::SOL_IP, libc::IP_MULTICAST_IF, &[127, 0, 0, 1]),
            (libc::SOL_IP, libc::IP_UNICAST_IF, LOOPBACK_IN_NETWORK_ORDER),
            (libc::SOL_IP, 51, &range),
            (libc::SOL_UDP, 1, ON),
            (libc::SOL_UDP, 103, SEVEN),
            (libc::SOL_UDP, 104, ON),
        ],
    );
}

#[test]
fn options_of_ipv6_come_back() {
    let switches =
        [2, 3, 4, 5, 8, 11, 25, 26, 31, 33, 49, 51, 53, 56, 58, 60, 62, 66, 74, 75, 77, 78];
    come_back(udp(libc::AF_INET6), &switches.map(|name| (libc::SOL_IPV6, name, ON)));
    come_back(
        udp(libc::AF_INET6),
        &[
            (libc::SOL_IPV6, libc::IPV6_MULTICAST_IF, ON),
            (libc::SOL_IPV6, 76, LOOPBACK_IN_NETWORK_ORDER),
            (libc::SOL_IPV6, 29, &[0; 4]),
            (libc::SOL_IPV6, libc::IPV6_AUTOFLOWLABEL, &[0; 4]),
            (libc::SOL_IPV6, libc::IPV6_ADDR_PREFERENCES, &[2, 4, 0, 0]),
            (libc::SOL_IPV6, libc::IPV6_MINHOPCOUNT, SEVEN),
            (libc::SOL_IPV6, libc::IPV6_TCLASS, SEVEN),
            // 24 bytes: more than any other value.
            (libc::SOL_IPV6, libc::IPV6_DSTOPTS, &[[0, 2, 1, 20].as_slice(), &[0; 20]].concat()),
            (libc::SOL_UDP, 101, ON),
            (libc::SOL_UDP, 102, ON),
        ],
    );
}

#[test]
fn options_of_tcp_and_of_raw_sockets_come_back() {
    let switches = [(27, ON), (36, ON), (16, ON), (18, SEVEN), (34, ON), (33, &[9; 16])];
    come_back(tcp(), &switches.map(|(name, value): (i32, &[u8])| (libc::SOL_TCP, name, value)));
    come_back(
        raw(libc::AF_INET, libc::IPPROTO_ICMP),
        &[(255, 1, &[0xf7, 0, 0, 0]), (libc::SOL_IP, 3, ON), (libc::SOL_IP, 22, ON)],
    );
    come_back(raw(libc::AF_INET6, libc::IPPROTO_ICMPV6), &[(libc::SOL_ICMPV6, 1, &[5; 32])]);
    come_back(raw(libc::AF_INET, 89), &[(libc::SOL_IP, libc::IP_ROUTER_ALERT, ON)]);
    come_back(raw(libc::AF_INET6, 89), &[(255, 7, &[12, 0, 0, 0])]);
}

#[test]
fn a_priority_comes_back_whatever_the_type_of_service_makes_of_it() {
    for priority in [0, 5] {
        let socket = udp(libc::AF_INET).socket().unwrap();
        sys::sock::set_number(socket.as_fd(), libc::SOL_IP, libc::IP_TOS, 0x10).unwrap();
        let set =
            |name, value| sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, name, value);
        set(libc::SO_PRIORITY, priority).unwrap();
        let (_, copy) = copy_of(&socket, udp(libc::AF_INET));
        let read = sys::sock::read_number(copy.as_fd(), libc::SOL_SOCKET, libc::SO_PRIORITY);
        assert_eq!(read.unwrap(), priority);
    }
}

#[test]
fn a_buffer_that_the_kernel_tunes_stays_tuned() {
    let socket = tcp().socket().unwrap();
    let number = |socket: &OwnedFd, name| {
        sys::sock::read_number(socket.as_fd(), libc::SOL_SOCKET, name).unwrap()
    };
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000).unwrap();
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, 72, 0).unwrap();
    let (_, copy) = copy_of(&socket, tcp());
    assert_eq!((number(&copy, libc::SO_RCVBUF), number(&copy, 72)), (100_000, 0));
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, 72, 2).unwrap();
    let (_, copy) = copy_of(&socket, tcp());
    assert_eq!((number(&copy, libc::SO_RCVBUF), number(&copy, 72)), (100_000, 2));
}

/// ldh [0]; jeq #7, drop; ret 65535; drop: ret 0.
fn program() -> Vec<u8> {
    let instructions: [(u16, u8, u8, u32); 4] =
        [(0x28, 0, 0, 0), (0x15, 1, 0, 7), (0x06, 0, 0, 65_535), (0x06, 0, 0, 0)];
    let bytes = |(code, yes, no, k): (u16, u8, u8, u32)| {
        [code.to_ne_bytes().as_slice(), &[yes, no], &k.to_ne_bytes()].concat()
    };
    instructions.into_iter().flat_map(bytes).collect()
}

#[test]
fn a_packet_filter_comes_back_byte_by_byte_and_locked() {
    for shape in [udp(libc::AF_INET), tcp(), raw(libc::AF_INET, 89)] {
        let socket = shape.socket().unwrap();
        filter::attach(socket.as_fd(), &program()).unwrap();
        assert_eq!(blocker(socket.as_fd(), shape), None);
        let (_, copy) = copy_of(&socket, shape);
        assert_eq!(filter::read(copy.as_fd()).unwrap(), program());
        let lock = |socket: &OwnedFd| {
            sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)
        };
        lock(&socket).unwrap();
        let (_, copy) = copy_of(&socket, shape);
        assert!(filter::attach(copy.as_fd(), &program()).is_err());
    }
}

#[test]
fn an_ebpf_filter_and_a_tunnel_are_refused() {
    let shape = udp(libc::AF_INET);
    let socket = shape.socket().unwrap();
    sys::sock::set_number(socket.as_fd(), libc::SOL_UDP, UDP_ENCAP, 2).unwrap();
    assert!(blocker(socket.as_fd(), shape).unwrap().0.contains("UDP_ENCAP"));
    let Some(program) = filter::ebpf() else {
        return crate::skipped::skip("this kernel loads no eBPF program");
    };
    let socket = shape.socket().unwrap();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_BPF);
    sys::sock::set_number(socket.as_fd(), level, name, program.as_raw_fd()).unwrap();
    assert!(blocker(socket.as_fd(), shape).unwrap().0.contains("eBPF"));
}

#[test]
fn options_that_mean_harm_are_refused_by_their_number() {
    let shape = udp(libc::AF_INET);
    let with = |level, name, value: &[u8]| {
        let set = vec![SocketOption { level, name, value: value.to_vec() }];
        Options { set, ..Options::default() }.socket(shape).unwrap_err().to_string()
    };
    assert!(with(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &[0; 16]).contains("1:26 is none"));
    assert!(with(libc::SOL_IP, libc::IP_UNICAST_IF, b"no such device").contains("0:50 cannot"));
    assert!(with(libc::SOL_SOCKET, libc::SO_RCVBUF, &[1]).contains("1:8 cannot"));
    for bytes in [vec![0; 7], vec![0; 8 * 4097], vec![0xff; 8]] {
        let socket = shape.socket().unwrap();
        assert!(filter::attach(socket.as_fd(), &bytes).is_err());
    }
}
