//! What a socket is apart from its address and its content: its options and its owner.
//!
//! An option travels when it differs from that of a fresh socket of the same shape, as the bytes
//! the kernel keeps. So an untouched socket follows the destination's own defaults, and buffers
//! that the kernel tunes stay tuned by it. An option costs 0.3 us to read.

mod carried;
mod device;
mod filter;

use super::SocketSeen;
use crate::sys;
use carried::{carried, is_changed_by, is_hint};
use filter::Filter;
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
    #[prost(message, optional, tag = "4")]
    filter: Option<Filter>,
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

impl Shape {
    pub(super) fn socket(self) -> io::Result<OwnedFd> {
        sys::sock::socket(self.domain, self.kind, self.protocol)
    }

    /// Pings are for some groups, and root need not be in one.
    fn socket_of(self, uid: u32, gid: u32) -> io::Result<OwnedFd> {
        match self.socket() {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                sys::sock::socket_as(self.domain, self.kind, self.protocol, uid, gid)
            }
            made => made,
        }
    }
}

impl Options {
    pub(super) fn read(socket: BorrowedFd<'_>, shape: Shape) -> io::Result<Self> {
        let inode = std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
        let fresh = fresh_values(shape, (inode.uid(), inode.gid()))?;
        let values = values(socket, shape);
        let mut set: Vec<SocketOption> = Vec::new();
        for ((option, value), fresh) in carried(shape).zip(values).zip(&*fresh) {
            let Some(value) = value else { continue };
            let is_changed = set.iter().any(|one| is_changed_by(option, (one.level, one.name)));
            if is_changed || fresh.as_ref() != Some(&value) {
                let value = device::to_name(socket, option, value)?;
                set.push(SocketOption { level: option.0, name: option.1, value });
            }
        }
        Ok(Self { set, uid: inode.uid(), gid: inode.gid(), filter: Filter::read(socket)? })
    }

    #[cfg(test)]
    pub(super) fn set_count(&self) -> usize {
        self.set.len()
    }

    /// Whether a switch is on that is off by default.
    pub(super) fn has(&self, level: i32, name: i32) -> bool {
        self.set.iter().any(|one| (one.level, one.name) == (level, name))
    }

    /// A new socket of the same owner; EACCES when its group may not have one (icmp(7)).
    pub(super) fn unset_socket(&self, shape: Shape) -> io::Result<OwnedFd> {
        shape.socket_of(self.uid, self.gid)
    }

    /// Takes an option out that its kind sees to itself.
    pub(super) fn take(&mut self, level: i32, name: i32) -> Option<Vec<u8>> {
        let at = self.set.iter().position(|one| (one.level, one.name) == (level, name))?;
        Some(self.set.remove(at).value)
    }

    pub(super) fn value(&self, level: i32, name: i32) -> Option<Vec<u8>> {
        let one = self.set.iter().find(|one| (one.level, one.name) == (level, name))?;
        Some(one.value.clone())
    }

    /// A new socket with these options, not yet bound. It has no packet filter: see `complete`.
    pub(super) fn socket(&self, shape: Shape) -> io::Result<OwnedFd> {
        let socket = shape.socket()?;
        self.apply(socket.as_fd(), shape)?;
        Ok(socket)
    }

    pub(super) fn apply(&self, socket: BorrowedFd<'_>, shape: Shape) -> io::Result<()> {
        fchown(socket, Some(self.uid), Some(self.gid))?;
        for SocketOption { level, name, value } in &self.set {
            let option = (*level, *name);
            if !carried(shape).any(|carried| carried == option) {
                let why = format!("option {level}:{name} is none that is carried");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            match set(socket, option, value) {
                Err(error) if !is_hint(option) => return Err(unset(option, &error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What comes last, once the queue of the socket is filled: its packet filter would judge what
    /// has passed it once. Opens it if it was `shut`.
    pub(super) fn complete(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        match &self.filter {
            Some(filter) => filter.attach(socket),
            None => filter::detach(socket),
        }
    }
}

/// Names the option, as the cause alone ("No such device") would not.
fn unset((level, name): (i32, i32), error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("option {level}:{name} cannot be set: {error}"))
}

type Values = Rc<Vec<Option<Vec<u8>>>>;

thread_local! {
    /// Asked for once by the thread of a tree, or every socket would cost twice as much. Defaults
    /// that an operator changes in the meantime only make an option travel that need not.
    static FRESH: RefCell<HashMap<Shape, Values>> = RefCell::default();
}

/// The carried options of a socket that nobody has touched, in their order.
fn fresh_values(shape: Shape, (uid, gid): (u32, u32)) -> io::Result<Values> {
    if let Some(known) = FRESH.with_borrow(|known| known.get(&shape).cloned()) {
        return Ok(known);
    }
    let socket = shape.socket_of(uid, gid)?;
    let values: Values = Rc::new(values(socket.as_fd(), shape).collect());
    FRESH.with_borrow_mut(|known| known.insert(shape, Rc::clone(&values)));
    Ok(values)
}

/// Room for the longest, an extension header of IPv6: its length is counted in one byte.
const VALUE_BYTES_MAX: usize = 256 * 8;

/// In the order of `carried`; `None` where this kernel does not know the option for such a socket.
fn values(socket: BorrowedFd<'_>, shape: Shape) -> impl Iterator<Item = Option<Vec<u8>>> {
    let mut room = [0; VALUE_BYTES_MAX];
    carried(shape).map(move |(level, name)| {
        let filled = sys::sock::read_option(socket, level, name, &mut room).ok()?;
        Some(room.get(..filled)?.to_vec())
    })
}

/// The kernel doubles a buffer size that it is told, and shows the double: socket(7).
fn set(socket: BorrowedFd<'_>, option: (i32, i32), value: &[u8]) -> io::Result<()> {
    let forced = match option {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => libc::SO_SNDBUFFORCE,
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => libc::SO_RCVBUFFORCE,
        (level, name) => {
            let value = device::to_index(socket, option, value)?;
            return sys::sock::set_option(socket, level, name, &value);
        }
    };
    let doubled = value.try_into().map(i32::from_ne_bytes);
    let doubled = doubled.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    sys::sock::set_number(socket, libc::SOL_SOCKET, forced, doubled / 2)
}

/// Lets nothing in until it is complete: what is on its way to others, or would not pass its filter.
pub(super) fn shut(socket: BorrowedFd<'_>) -> io::Result<()> {
    // ret 0.
    sys::filter::attach(socket, &[6, 0, 0, 0, 0, 0, 0, 0])
}

/// TCP_ULP of linux/tcp.h: what is laid upon TCP in the kernel, such as TLS.
const TCP_ULP: i32 = 31;
/// UDP_ENCAP of udp(7): the kernel itself takes packets out of the socket.
const UDP_ENCAP: i32 = 100;

/// What a socket has that no option brings back: the reason and the advice.
pub(super) fn blocker(
    socket: BorrowedFd<'_>,
    shape: Shape,
) -> Option<(&'static str, &'static str)> {
    let is_set = |level, name| {
        let mut room = [0; 16];
        let filled = sys::sock::read_option(socket, level, name, &mut room).unwrap_or(0);
        room[..filled.min(room.len())].iter().any(|&byte| byte != 0)
    };
    if filter::is_unreadable(socket) {
        let reason = "has an eBPF filter, which the kernel does not give back";
        return Some((reason, "Let the program detach it."));
    }
    if shape.protocol == libc::IPPROTO_TCP && is_set(libc::SOL_TCP, TCP_ULP) {
        let reason = "is used through another protocol in the kernel (TCP_ULP, as for TLS)";
        return Some((reason, "Let the program do it itself."));
    }
    if shape.protocol == libc::IPPROTO_UDP && is_set(libc::SOL_UDP, UDP_ENCAP) {
        let reason = "carries a tunnel of this host's kernel (UDP_ENCAP)";
        return Some((reason, "Take the tunnel down first."));
    }
    None
}

#[cfg(test)]
mod tests;
