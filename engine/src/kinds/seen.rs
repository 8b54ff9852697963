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
    /// The descriptor of the socket in whose queue it lies, when no table of the tree has it:
    /// `pid` and `fd` are our own duplicate then.
    pub in_flight_to: Option<(i32, i32)>,
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
    /// Of a listening socket: connections that may wait, and the sockets of those that do; 0 for
    /// one that is closed.
    pub backlog: u32,
    pub waiting: Vec<u64>,
    /// What it sent and nobody has read yet, in the kernel's measure.
    pub unread: u32,
    /// The listening socket at which it waits to be accepted.
    pub waits_at: Option<u64>,
    /// Another socket of its type has the same name: an accepted one has its listener's.
    pub shares_name: bool,
    /// The name of the socket that it is connected to.
    pub peer_name: Vec<u8>,
    /// That one is connected to it as well.
    pub answered: bool,
}

impl UnixSeen {
    /// Its name as ss(8) shows it. An abstract name begins with a zero, which people write as `@`;
    /// the zeros that end a path, or fill up an abstract name, are no part of what anybody reads:
    /// see unix(7).
    pub fn shown_name(&self) -> Option<String> {
        (!self.name.is_empty()).then(|| shown(&self.name))
    }
}

/// The name of a unix socket as ss(8) shows it.
pub(super) fn shown(name: &[u8]) -> String {
    let end = name.iter().rposition(|&byte| byte != 0).map_or(1, |last| last + 1);
    let text = String::from_utf8_lossy(name.get(..end).unwrap_or_default()).replace('\0', "@");
    let shown = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    text.chars().map(shown).collect()
}

impl Seen {
    pub fn object(&self, kind: &'static str) -> Object {
        match self.in_flight_to {
            Some((pid, fd)) => Object::InFlight { pid, fd, kind },
            None => Object::Fd { pid: self.pid, fd: self.fd, kind },
        }
    }

    /// A duplicate of our own, to ask what cannot be seen from outside.
    pub(super) fn steal(&self) -> io::Result<OwnedFd> {
        let process = sys::fd::pidfd_open(self.pid, 0)?;
        sys::fd::pidfd_getfd(process.as_fd(), self.fd)
    }

    pub(super) fn is_listening(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.listening)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &[u8]) -> Option<String> {
        UnixSeen { name: name.to_vec(), ..UnixSeen::default() }.shown_name()
    }

    #[test]
    fn a_unix_socket_is_named_as_ss_names_it() {
        assert_eq!(shown(b""), None);
        assert_eq!(shown(b"\0").as_deref(), Some("@"));
        assert_eq!(shown(b"/run/ul.sock\0").as_deref(), Some("/run/ul.sock"));
        assert_eq!(shown(b"\0ul4084.sock").as_deref(), Some("@ul4084.sock"));
        assert_eq!(shown(b"\0ul\x004084\0\0\0").as_deref(), Some("@ul@4084"));
        assert_eq!(shown(b"a\x1b[2Jb").as_deref(), Some("a\\u{1b}[2Jb"));
    }
}
