//! The options that travel, in the order in which they are set.
//!
//! What the kernel does not give back cannot be carried: the device of IP_MULTICAST_IF (only its
//! address is told), the fragment size of IPV6_MTU, IPsec policies of a socket, TCP_MD5SIG keys,
//! IPV6_JOIN_ANYCAST, IPV6_ROUTER_ALERT of the value 0, flow labels that were leased, and programs that choose among the sockets of
//! a group (SO_ATTACH_REUSEPORT_CBPF and _EBPF). TCP_QUICKACK is a state and no setting.

use super::Shape;

/// Newer than `libc`'s list, or missing from it: include/uapi/asm-generic/socket.h.
const SO_TIMESTAMP_NEW: i32 = 63;
const SO_TIMESTAMPNS_NEW: i32 = 64;
const SO_TIMESTAMPING_NEW: i32 = 65;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
const SO_BUF_LOCK: i32 = 72;
const SO_RESERVE_MEM: i32 = 73;
const SO_TXREHASH: i32 = 74;
const SO_RCVMARK: i32 = 75;
const SO_PASSPIDFD: i32 = 76;
const SO_RCVPRIORITY: i32 = 82;
const SO_PASSRIGHTS: i32 = 83;

/// include/uapi/linux/in.h, in6.h.
const IP_RECVERR_RFC4884: i32 = 26;
const IP_LOCAL_PORT_RANGE: i32 = 51;
const IPV6_2292PKTINFO: i32 = 2;
const IPV6_2292HOPOPTS: i32 = 3;
const IPV6_2292DSTOPTS: i32 = 4;
const IPV6_2292RTHDR: i32 = 5;
const IPV6_CHECKSUM: i32 = 7;
const IPV6_2292HOPLIMIT: i32 = 8;
const IPV6_FLOWINFO: i32 = 11;
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_ROUTER_ALERT_ISOLATE: i32 = 30;
const IPV6_RECVERR_RFC4884: i32 = 31;
const IPV6_FLOWINFO_SEND: i32 = 33;
const IPV6_UNICAST_IF: i32 = 76;

/// include/uapi/linux/tcp.h.
const TCP_THIN_LINEAR_TIMEOUTS: i32 = 16;
const TCP_FASTOPEN_KEY: i32 = 33;
const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
const TCP_INQ: i32 = 36;
const TCP_TX_DELAY: i32 = 37;
const TCP_RTO_MAX_MS: i32 = 44;
const TCP_RTO_MIN_US: i32 = 45;
const TCP_DELACK_MAX_US: i32 = 46;

/// include/uapi/linux/udp.h, icmp.h, icmpv6.h; `libc` has no number for a raw socket's level.
const UDP_NO_CHECK6_TX: i32 = 101;
const UDP_NO_CHECK6_RX: i32 = 102;
const SOL_RAW: i32 = 255;
const ICMP_FILTER: i32 = 1;
const ICMPV6_FILTER: i32 = 1;

/// socket(7). The order matters where two share a switch: a later one has the last word.
const SOCKET: &[i32] = &[
    libc::SO_DEBUG,
    libc::SO_REUSEADDR,
    libc::SO_REUSEPORT,
    libc::SO_KEEPALIVE,
    libc::SO_BROADCAST,
    libc::SO_OOBINLINE,
    libc::SO_DONTROUTE,
    libc::SO_LINGER,
    libc::SO_RCVTIMEO,
    libc::SO_SNDTIMEO,
    libc::SO_RCVLOWAT,
    libc::SO_MARK,
    libc::SO_PASSCRED,
    libc::SO_PASSSEC,
    SO_PASSPIDFD,
    SO_PASSRIGHTS,
    libc::SO_PEEK_OFF,
    libc::SO_BINDTODEVICE,
    libc::SO_TIMESTAMP,
    libc::SO_TIMESTAMPNS,
    libc::SO_TIMESTAMPING,
    SO_TIMESTAMP_NEW,
    SO_TIMESTAMPNS_NEW,
    SO_TIMESTAMPING_NEW,
    libc::SO_RXQ_OVFL,
    libc::SO_WIFI_STATUS,
    libc::SO_NOFCS,
    libc::SO_SELECT_ERR_QUEUE,
    SO_RCVMARK,
    SO_RCVPRIORITY,
    libc::SO_NO_CHECK,
    libc::SO_BUSY_POLL,
    SO_PREFER_BUSY_POLL,
    SO_BUSY_POLL_BUDGET,
    libc::SO_INCOMING_CPU,
    libc::SO_ZEROCOPY,
    libc::SO_MAX_PACING_RATE,
    libc::SO_TXTIME,
    SO_TXREHASH,
    SO_RESERVE_MEM,
];

/// What others overwrite: IP_TOS sets the priority, and TCP may raise the size of a buffer.
const LAST: &[i32] = &[libc::SO_PRIORITY, libc::SO_SNDBUF, libc::SO_RCVBUF];

/// ip(7).
const IPV4: &[i32] = &[
    libc::IP_OPTIONS,
    libc::IP_TOS,
    libc::IP_TTL,
    libc::IP_HDRINCL,
    libc::IP_ROUTER_ALERT,
    libc::IP_NODEFRAG,
    libc::IP_PKTINFO,
    libc::IP_MTU_DISCOVER,
    libc::IP_RECVERR,
    IP_RECVERR_RFC4884,
    libc::IP_RECVTTL,
    libc::IP_RECVTOS,
    libc::IP_RECVOPTS,
    libc::IP_RETOPTS,
    libc::IP_PASSSEC,
    libc::IP_CHECKSUM,
    libc::IP_RECVFRAGSIZE,
    libc::IP_FREEBIND,
    libc::IP_TRANSPARENT,
    libc::IP_RECVORIGDSTADDR,
    libc::IP_MINTTL,
    libc::IP_BIND_ADDRESS_NO_PORT,
    IP_LOCAL_PORT_RANGE,
    libc::IP_UNICAST_IF,
    libc::IP_MULTICAST_IF,
    libc::IP_MULTICAST_TTL,
    libc::IP_MULTICAST_LOOP,
    libc::IP_MULTICAST_ALL,
];

/// ipv6(7).
const IPV6: &[i32] = &[
    libc::IPV6_V6ONLY,
    libc::IPV6_UNICAST_HOPS,
    libc::IPV6_MULTICAST_IF,
    IPV6_UNICAST_IF,
    libc::IPV6_MULTICAST_HOPS,
    libc::IPV6_MULTICAST_LOOP,
    IPV6_MULTICAST_ALL,
    libc::IPV6_MTU_DISCOVER,
    libc::IPV6_DONTFRAG,
    libc::IPV6_RECVERR,
    IPV6_RECVERR_RFC4884,
    libc::IPV6_RECVPKTINFO,
    IPV6_2292PKTINFO,
    libc::IPV6_RECVHOPLIMIT,
    IPV6_2292HOPLIMIT,
    libc::IPV6_RECVTCLASS,
    libc::IPV6_RECVHOPOPTS,
    IPV6_2292HOPOPTS,
    libc::IPV6_RECVRTHDR,
    IPV6_2292RTHDR,
    libc::IPV6_RECVDSTOPTS,
    IPV6_2292DSTOPTS,
    libc::IPV6_RECVPATHMTU,
    libc::IPV6_RECVFRAGSIZE,
    libc::IPV6_RECVORIGDSTADDR,
    IPV6_FLOWINFO,
    IPV6_FLOWINFO_SEND,
    libc::IPV6_AUTOFLOWLABEL,
    libc::IPV6_HDRINCL,
    libc::IPV6_HOPOPTS,
    libc::IPV6_RTHDR,
    libc::IPV6_RTHDRDSTOPTS,
    libc::IPV6_DSTOPTS,
    libc::IPV6_TCLASS,
    libc::IPV6_MINHOPCOUNT,
    IPV6_ROUTER_ALERT_ISOLATE,
    libc::IPV6_ADDR_PREFERENCES,
    libc::IPV6_FREEBIND,
    libc::IPV6_TRANSPARENT,
];

/// tcp(7).
const TCP: &[i32] = &[
    libc::TCP_NODELAY,
    libc::TCP_MAXSEG,
    libc::TCP_CORK,
    libc::TCP_KEEPIDLE,
    libc::TCP_KEEPINTVL,
    libc::TCP_KEEPCNT,
    libc::TCP_SYNCNT,
    libc::TCP_LINGER2,
    libc::TCP_DEFER_ACCEPT,
    libc::TCP_WINDOW_CLAMP,
    libc::TCP_CONGESTION,
    libc::TCP_USER_TIMEOUT,
    TCP_THIN_LINEAR_TIMEOUTS,
    libc::TCP_SAVE_SYN,
    TCP_INQ,
    TCP_TX_DELAY,
    libc::TCP_FASTOPEN,
    libc::TCP_FASTOPEN_CONNECT,
    TCP_FASTOPEN_NO_COOKIE,
    TCP_FASTOPEN_KEY,
    libc::TCP_NOTSENT_LOWAT,
    TCP_RTO_MAX_MS,
    TCP_RTO_MIN_US,
    TCP_DELACK_MAX_US,
];

/// udp(7).
const UDP: &[i32] =
    &[libc::UDP_CORK, UDP_NO_CHECK6_TX, UDP_NO_CHECK6_RX, libc::UDP_SEGMENT, libc::UDP_GRO];

/// netlink(7).
const NETLINK: &[i32] = &[
    libc::NETLINK_PKTINFO,
    libc::NETLINK_BROADCAST_ERROR,
    libc::NETLINK_NO_ENOBUFS,
    libc::NETLINK_LISTEN_ALL_NSID,
    libc::NETLINK_CAP_ACK,
    libc::NETLINK_EXT_ACK,
    libc::NETLINK_GET_STRICT_CHK,
];

/// Every option that we carry for such a socket, as (level, name).
pub(super) fn carried(shape: Shape) -> impl Iterator<Item = (i32, i32)> {
    let v6 = shape.domain == libc::AF_INET6;
    let ip = v6 || shape.domain == libc::AF_INET;
    let raw = |protocol| shape.kind == libc::SOCK_RAW && shape.protocol == protocol;
    let lists: [(bool, i32, &[i32]); 11] = [
        (true, libc::SOL_SOCKET, SOCKET),
        (ip, libc::SOL_IP, IPV4),
        (v6, libc::SOL_IPV6, IPV6),
        (ip && is_tcp(shape), libc::SOL_TCP, TCP),
        (ip && shape.protocol == libc::IPPROTO_UDP, libc::SOL_UDP, UDP),
        (v6 && shape.kind == libc::SOCK_RAW, SOL_RAW, &[IPV6_CHECKSUM]),
        (!v6 && ip && raw(libc::IPPROTO_ICMP), SOL_RAW, &[ICMP_FILTER]),
        (v6 && raw(libc::IPPROTO_ICMPV6), libc::SOL_ICMPV6, &[ICMPV6_FILTER]),
        (shape.domain == libc::AF_NETLINK, libc::SOL_NETLINK, NETLINK),
        (true, libc::SOL_SOCKET, LAST),
        // A size that is set is tuned no more; nobody else tunes any.
        (ip && shape.protocol == libc::IPPROTO_TCP, libc::SOL_SOCKET, &[SO_BUF_LOCK]),
    ];
    lists
        .into_iter()
        .filter(|(applies, ..)| *applies)
        .flat_map(|(_, level, names)| names.iter().map(move |&name| (level, name)))
}

/// Of Multipath TCP the kernel answers to those that it has.
fn is_tcp(shape: Shape) -> bool {
    matches!(shape.protocol, libc::IPPROTO_TCP | libc::IPPROTO_MPTCP)
}

/// An option travels with a default value as well when another one that does would change it.
pub(super) fn is_changed_by(option: (i32, i32), other: (i32, i32)) -> bool {
    const CHANGED: &[(i32, i32, i32)] = &[
        (libc::SO_PRIORITY, libc::SOL_IP, libc::IP_TOS),
        (SO_BUF_LOCK, libc::SOL_SOCKET, libc::SO_SNDBUF),
        (SO_BUF_LOCK, libc::SOL_SOCKET, libc::SO_RCVBUF),
    ];
    option.0 == libc::SOL_SOCKET && CHANGED.contains(&(option.1, other.0, other.1))
}

/// What only makes a socket faster: another kernel, or another group's memory, may lack it.
pub(super) fn is_hint((level, name): (i32, i32)) -> bool {
    const HINTS: &[i32] = &[
        libc::SO_BUSY_POLL,
        SO_PREFER_BUSY_POLL,
        SO_BUSY_POLL_BUDGET,
        libc::SO_INCOMING_CPU,
        SO_TXREHASH,
        SO_RESERVE_MEM,
    ];
    level == libc::SOL_SOCKET && HINTS.contains(&name)
}
