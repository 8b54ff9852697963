//! What sockets tell of themselves, and how they are made again.

use super::{Feature, NET_ADMIN, NET_RAW, NEWER_KERNEL, Need, Permission, TAKING_APART, must};
use crate::network::netlink::{Attributes, Message, Socket};
use crate::sys::{filter, sock};
use nix::sys::socket::{MsgFlags, recv, send};
use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "unix_diag",
        since: "3.3",
        need: TAKING_APART,
        loss: "Which unix sockets are joined to each other cannot be told.",
        advice: "Use a kernel with CONFIG_UNIX_DIAG, and load the module unix_diag.",
        permission: Permission::FREE,
        probe: || {
            let _ours = sock::pair(libc::AF_UNIX, libc::SOCK_STREAM)?;
            must(listed(&unix_request())? > 0)
        },
    },
    Feature {
        name: "inet_diag (tcp_diag)",
        since: "3.3",
        need: Need::Useful,
        loss: "TCP connections that are not open yet cannot be moved, nor signed ones be refused.",
        advice: "Use a kernel with CONFIG_INET_TCP_DIAG, and load the module tcp_diag.",
        permission: Permission::FREE,
        probe: || {
            let _ours = TcpListener::bind(("127.0.0.1", 0))?;
            must(listed(&tcp_request())? > 0)
        },
    },
    Feature {
        name: "scm_fds",
        since: "5.9",
        need: Need::Useful,
        loss: "Descriptors that are in flight between unix sockets cannot be seen, and are lost.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || {
            let [one, _other] = sock::pair(libc::AF_UNIX, libc::SOCK_STREAM)?;
            let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", one.as_raw_fd()))?;
            must(fdinfo.contains("scm_fds:"))
        },
    },
    Feature {
        name: "SO_PEEK_OFF (unix)",
        since: "3.4",
        need: Need::Useful,
        loss: "Programs with unread messages in their unix sockets cannot be moved.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || sock::pair(libc::AF_UNIX, libc::SOCK_DGRAM).and_then(both_are_peeked),
    },
    Feature {
        name: "SO_PEEK_OFF (UDP)",
        since: "4.7",
        need: Need::Useful,
        loss: "Programs with unread datagrams in their sockets cannot be moved.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || {
            let socket = || UdpSocket::bind(("127.0.0.1", 0));
            let (from, to) = (socket()?, socket()?);
            from.connect(to.local_addr()?)?;
            both_are_peeked([from.into(), to.into()])
        },
    },
    Feature {
        name: "SO_GET_FILTER",
        since: "3.8",
        need: Need::Useful,
        loss: "Connections cannot be kept deaf while they are made, and packet filters not be \
               read.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || {
            /// `ret #0`
            const NOTHING_PASSES: [u8; 8] = [6, 0, 0, 0, 0, 0, 0, 0];
            let [one, _other] = sock::pair(libc::AF_UNIX, libc::SOCK_DGRAM)?;
            filter::attach(one.as_fd(), &NOTHING_PASSES)?;
            must(filter::read(one.as_fd())? == NOTHING_PASSES)
        },
    },
    Feature {
        name: "SIOCUNIXFILE",
        since: "4.16",
        need: Need::Useful,
        loss: "Programs whose unix sockets have names in the file system cannot be moved.",
        advice: NEWER_KERNEL,
        permission: Permission::of(NET_ADMIN),
        probe: || {
            let [one, _other] = sock::pair(libc::AF_UNIX, libc::SOCK_STREAM)?;
            // These two have no file, which only a kernel that looks for it can say.
            match sock::file_of(one.as_fd()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                other => other.map(drop),
            }
        },
    },
    Feature {
        name: "SIOCGSKNS",
        since: "4.9",
        need: Need::Useful,
        loss: "Sockets of other network namespaces cannot be told from a program's own.",
        advice: NEWER_KERNEL,
        permission: Permission::of(NET_ADMIN),
        probe: || sock::namespace(tcp()?.as_fd()).map(drop),
    },
    Feature {
        name: "TCP_REPAIR",
        since: "3.5",
        need: Need::Useful,
        loss: "TCP connections cannot be moved.",
        advice: "Use a kernel with CONFIG_CHECKPOINT_RESTORE (or older than 5.2).",
        permission: Permission::of(NET_ADMIN),
        probe: || {
            const RECEIVE_QUEUE: i32 = 1;
            let socket = in_repair()?;
            let set = |name, value| sock::set_number(socket.as_fd(), libc::SOL_TCP, name, value);
            set(libc::TCP_REPAIR_QUEUE, RECEIVE_QUEUE)?;
            set(libc::TCP_QUEUE_SEQ, 4711)?;
            let read = sock::read_number(socket.as_fd(), libc::SOL_TCP, libc::TCP_QUEUE_SEQ);
            must(read? == 4711)
        },
    },
    Feature {
        name: "TCP_REPAIR_WINDOW",
        since: "4.8",
        need: Need::Useful,
        loss: "TCP connections cannot be moved: their windows are not told.",
        advice: NEWER_KERNEL,
        permission: Permission::of(NET_ADMIN),
        probe: || {
            let mut window = [0; 20];
            let (socket, name) = (in_repair()?, libc::TCP_REPAIR_WINDOW);
            let length = sock::read_option(socket.as_fd(), libc::SOL_TCP, name, &mut window)?;
            must(length == window.len())
        },
    },
    Feature {
        name: "SO_BUF_LOCK",
        since: "5.14",
        need: Need::Useful,
        loss: "The buffers of a connection that comes here keep their size: they are not tuned.",
        advice: NEWER_KERNEL,
        permission: Permission::FREE,
        probe: || sock::read_number(tcp()?.as_fd(), libc::SOL_SOCKET, SO_BUF_LOCK).map(drop),
    },
    Feature {
        name: "raw(7)",
        since: "2.2",
        need: Need::Useful,
        loss: "Queued datagrams cannot come back with their senders, and some states of TCP not \
               at all.",
        advice: NEWER_KERNEL,
        permission: Permission::of(NET_RAW),
        probe: || sock::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW).map(drop),
    },
];

const SO_BUF_LOCK: i32 = 72;
/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

fn tcp() -> io::Result<OwnedFd> {
    sock::socket(libc::AF_INET, libc::SOCK_STREAM, 0)
}

fn in_repair() -> io::Result<OwnedFd> {
    let socket = tcp()?;
    sock::set_number(socket.as_fd(), libc::SOL_TCP, libc::TCP_REPAIR, 1)?;
    Ok(socket)
}

/// Two messages that nobody has read are seen one after the other, and stay.
fn both_are_peeked([from, to]: [OwnedFd; 2]) -> io::Result<()> {
    sock::set_number(to.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)?;
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    for message in [b"1", b"2"] {
        send(from.as_raw_fd(), message, MsgFlags::empty())?;
    }
    for message in [b"1", b"2"] {
        let mut byte = [0];
        recv(to.as_raw_fd(), &mut byte, flags)?;
        must(&byte == message)?;
    }
    Ok(())
}

fn listed(fixed: &[u8]) -> io::Result<usize> {
    let request = Message::new(SOCK_DIAG_BY_FAMILY, 0, fixed, &Attributes::new());
    Ok(Socket::open(libc::NETLINK_SOCK_DIAG)?.list(&request)?.len())
}

/// `unix_diag_req`: in every state, and nothing else of them.
fn unix_request() -> Vec<u8> {
    let words = [libc::AF_UNIX.unsigned_abs(), u32::MAX, 0, 0, u32::MAX, u32::MAX];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `inet_diag_req_v2`: in every state.
fn tcp_request() -> Vec<u8> {
    let head = [libc::AF_INET, libc::IPPROTO_TCP, 0, 0].map(|byte| byte.to_ne_bytes()[0]);
    [&head[..], &u32::MAX.to_ne_bytes(), &[0; 48]].concat()
}
