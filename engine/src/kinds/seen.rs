//! A description as it looks from outside.

use crate::error::Object;
use crate::sys;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// What is known of a description from outside, without touching the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// One descriptor that refers to it (there may be more, in other processes too).
    pub pid: i32,
    pub fd: i32,
    /// Target of `/proc/PID/fd/N`: "pipe:[4711]", "anon_inode:[eventfd]", "/etc/hosts".
    pub link: String,
    /// stat(2) of the object.
    pub mode: u32,
    pub device: u64,
    pub inode: u64,
    pub rdev: u64,
    pub size: u64,
    pub links: u64,
    /// `pos` and `flags` (without O_CLOEXEC, which is the descriptor's) of fdinfo.
    pub position: u64,
    pub flags: i32,
    /// The whole text of `/proc/PID/fdinfo/N`.
    pub fdinfo: String,
    /// What a socket says of itself; `None` for everything else.
    pub socket: Option<SocketSeen>,
}

/// What a socket says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSeen {
    /// SO_DOMAIN, SO_TYPE, SO_PROTOCOL: AF_*, SOCK_*, IPPROTO_*.
    pub domain: i32,
    pub kind: i32,
    pub protocol: i32,
    pub listening: bool,
    /// TCP only: TCP_ESTABLISHED (1) and so on; 0 for every other socket.
    pub tcp_state: u8,
    /// TCP only: poll(2) says that the connection was one and is over.
    pub hung_up: bool,
    /// Unix only: what the kernel's list of unix sockets says.
    pub unix: Option<UnixSeen>,
}

/// A unix socket in the kernel's list: sock_diag(7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSeen {
    /// The inode of the socket it is connected to; 0 when that one is closed.
    pub peer: Option<u64>,
    /// Its name; empty for most connected sockets.
    pub name: Vec<u8>,
    /// 1: nothing more can be received; 2: nothing more can be sent.
    pub shutdown: u8,
}

impl Seen {
    pub fn object(&self, kind: &'static str) -> Object {
        Object::Fd { pid: self.pid, fd: self.fd, kind }
    }

    /// A duplicate of our own, to ask what cannot be seen from outside.
    pub(super) fn steal(&self) -> io::Result<OwnedFd> {
        let process = sys::fd::pidfd_open(self.pid, 0)?;
        sys::fd::pidfd_getfd(process.as_fd(), self.fd)
    }

    /// A field of fdinfo: `field("eventfd-count")`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fdinfo.lines().find_map(|line| value(line, name))
    }

    /// All fields of that name, in their order: an epoll has a `tfd` for each registration.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fdinfo.lines().filter_map(move |line| value(line, name))
    }

    /// S_IFMT of the mode.
    pub fn shape(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// O_RDONLY, O_WRONLY or O_RDWR.
    pub fn access(&self) -> i32 {
        self.flags & libc::O_ACCMODE
    }

    /// A place in the file tree, through which nothing can be read or written.
    pub fn is_path_only(&self) -> bool {
        self.flags & libc::O_PATH != 0
    }

    pub fn can_read(&self) -> bool {
        self.access() != libc::O_WRONLY
    }

    pub fn can_write(&self) -> bool {
        self.access() != libc::O_RDONLY
    }
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    Some(line.strip_prefix(name)?.strip_prefix(':')?.trim())
}
