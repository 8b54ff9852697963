//! What a socket is apart from its address and its content: its options and its owner.
//!
//! An option travels when it differs from that of a fresh socket of the same shape, as the bytes
//! the kernel keeps. So an untouched socket follows the destination's own defaults, and buffers
//! that the kernel tunes stay tuned by it.

use super::SocketSeen;
use crate::sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::rc::Rc;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Options {
    #[prost(message, repeated, tag = "1")]
    set: Vec<SocketOption>,
    /// Who made it: ports are shared (SO_REUSEPORT) only among sockets of one user.
    #[prost(uint32, tag = "2")]
    uid: u32,
    #[prost(uint32, tag = "3")]
    gid: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SocketOption {
    #[prost(int32, tag = "1")]
    level: i32,
    #[prost(int32, tag = "2")]
    name: i32,
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
}

/// What makes two sockets ask for the same options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) domain: i32,
    pub(super) kind: i32,
    pub(super) protocol: i32,
}

impl From<&SocketSeen> for Shape {
    fn from(seen: &SocketSeen) -> Self {
        Self { domain: seen.domain, kind: seen.kind, protocol: seen.protocol }
    }
}

/// SO_PASSPIDFD (Linux 6.5) and SO_PASSRIGHTS (Linux 6.16), newer than `libc`'s list.
const PASS_PIDFD: i32 = 76;
const PASS_RIGHTS: i32 = 83;

/// socket(7). The order matters where two share a switch: a later one has the last word.
const SOCKET: &[i32] = &[
    libc::SO_REUSEADDR,
    libc::SO_REUSEPORT,
    libc::SO_KEEPALIVE,
    libc::SO_BROADCAST,
    libc::SO_OOBINLINE,
    libc::SO_DONTROUTE,
    libc::SO_PRIORITY,
    libc::SO_LINGER,
    libc::SO_RCVTIMEO,
    libc::SO_SNDTIMEO,
    libc::SO_RCVLOWAT,
    libc::SO_MARK,
    libc::SO_PASSCRED,
    libc::SO_PASSSEC,
    PASS_PIDFD,
    PASS_RIGHTS,
    libc::SO_PEEK_OFF,
    libc::SO_BINDTODEVICE,
    libc::SO_TIMESTAMP,
    libc::SO_TIMESTAMPNS,
    libc::SO_TIMESTAMPING,
    libc::SO_RXQ_OVFL,
    libc::SO_NO_CHECK,
    libc::SO_BUSY_POLL,
    libc::SO_ZEROCOPY,
    libc::SO_SNDBUF,
    libc::SO_RCVBUF,
];

/// ip(7).
const IPV4: &[i32] = &[
    libc::IP_TOS,
    libc::IP_TTL,
    libc::IP_PKTINFO,
    libc::IP_MTU_DISCOVER,
    libc::IP_RECVERR,
    libc::IP_RECVTTL,
    libc::IP_RECVTOS,
    libc::IP_FREEBIND,
    libc::IP_TRANSPARENT,
    libc::IP_RECVORIGDSTADDR,
    libc::IP_MINTTL,
    libc::IP_BIND_ADDRESS_NO_PORT,
    libc::IP_MULTICAST_TTL,
    libc::IP_MULTICAST_LOOP,
    libc::IP_MULTICAST_ALL,
];

/// ipv6(7).
const IPV6: &[i32] = &[
    libc::IPV6_V6ONLY,
    libc::IPV6_UNICAST_HOPS,
    libc::IPV6_MULTICAST_HOPS,
    libc::IPV6_MULTICAST_LOOP,
    libc::IPV6_MTU_DISCOVER,
    libc::IPV6_RECVERR,
    libc::IPV6_RECVPKTINFO,
    libc::IPV6_RECVHOPLIMIT,
    libc::IPV6_RECVTCLASS,
    libc::IPV6_TCLASS,
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
    libc::TCP_FASTOPEN,
    libc::TCP_FASTOPEN_CONNECT,
    libc::TCP_NOTSENT_LOWAT,
];

/// udp(7).
const UDP: &[i32] = &[libc::UDP_SEGMENT, libc::UDP_GRO];

impl Shape {
    /// Every option that we carry for such a socket, as (level, name).
    fn carried(self) -> impl Iterator<Item = (i32, i32)> {
        let ip = matches!(self.domain, libc::AF_INET | libc::AF_INET6);
        let lists = [
            (true, libc::SOL_SOCKET, SOCKET),
            (ip, libc::SOL_IP, IPV4),
            (self.domain == libc::AF_INET6, libc::SOL_IPV6, IPV6),
            (ip && self.protocol == libc::IPPROTO_TCP, libc::SOL_TCP, TCP),
            (ip && self.protocol == libc::IPPROTO_UDP, libc::SOL_UDP, UDP),
        ];
        lists
            .into_iter()
            .filter(|(applies, ..)| *applies)
            .flat_map(|(_, level, names)| names.iter().map(move |&name| (level, name)))
    }

    pub(super) fn socket(self) -> io::Result<OwnedFd> {
        sys::sock::socket(self.domain, self.kind, self.protocol)
    }
}

impl Options {
    pub(super) fn read(socket: BorrowedFd<'_>, shape: Shape) -> io::Result<Self> {
        let fresh = fresh_values(shape)?;
        let set = shape
            .carried()
            .zip(&*fresh)
            .filter_map(|((level, name), fresh)| {
                let value = value(socket, level, name)?;
                (fresh.as_ref() != Some(&value)).then_some(SocketOption { level, name, value })
            })
            .collect();
        let inode = std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
        Ok(Self { set, uid: inode.uid(), gid: inode.gid() })
    }

    #[cfg(test)]
    pub(super) fn set_count(&self) -> usize {
        self.set.len()
    }

    /// A new socket with these options, not yet bound.
    pub(super) fn socket(&self, shape: Shape) -> io::Result<OwnedFd> {
        let socket = shape.socket()?;
        self.apply(socket.as_fd(), shape)?;
        Ok(socket)
    }

    pub(super) fn apply(&self, socket: BorrowedFd<'_>, shape: Shape) -> io::Result<()> {
        fchown(socket, Some(self.uid), Some(self.gid))?;
        for SocketOption { level, name, value } in &self.set {
            if !shape.carried().any(|carried| carried == (*level, *name)) {
                let why = format!("option {level}:{name} is none that is carried");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            set(socket, *level, *name, value)?;
        }
        Ok(())
    }
}

type Values = Rc<Vec<Option<Vec<u8>>>>;

thread_local! {
    /// Asked for once by the thread of a tree, or every socket would cost twice as much. Defaults
    /// that an operator changes in the meantime only make an option travel that need not.
    static FRESH: RefCell<HashMap<Shape, Values>> = RefCell::default();
}

/// The carried options of a socket that nobody has touched, in their order.
fn fresh_values(shape: Shape) -> io::Result<Values> {
    if let Some(known) = FRESH.with_borrow(|known| known.get(&shape).cloned()) {
        return Ok(known);
    }
    let socket = shape.socket()?;
    let read = |(level, name)| value(socket.as_fd(), level, name);
    let values: Values = Rc::new(shape.carried().map(read).collect());
    FRESH.with_borrow_mut(|known| known.insert(shape, Rc::clone(&values)));
    Ok(values)
}

/// Room for the longest: a device's or an algorithm's name, or a pair of 64-bit numbers.
const VALUE_BYTES_MAX: usize = 16;

/// `None` when this kernel does not know the option for such a socket.
fn value(socket: BorrowedFd<'_>, level: i32, name: i32) -> Option<Vec<u8>> {
    let mut room = vec![0; VALUE_BYTES_MAX];
    let filled = sys::sock::read_option(socket, level, name, &mut room).ok()?;
    room.truncate(filled);
    Some(room)
}

/// The kernel doubles a buffer size that it is told, and shows the double: socket(7).
fn set(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let forced = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => libc::SO_SNDBUFFORCE,
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => libc::SO_RCVBUFFORCE,
        _ => return sys::sock::set_option(socket, level, name, value),
    };
    let doubled = value.try_into().map(i32::from_ne_bytes);
    let doubled = doubled.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    sys::sock::set_number(socket, level, forced, doubled / 2)
}

/// Whether packets pass a program first. An eBPF one cannot even be read.
pub(super) fn has_filter(socket: BorrowedFd<'_>) -> bool {
    // SO_GET_FILTER is SO_ATTACH_FILTER when reading, and counts instructions.
    match sys::sock::read_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &mut []) {
        Ok(instructions) => instructions > 0,
        Err(error) => error.raw_os_error() == Some(libc::EACCES),
    }
}
