//! Who made a connection, as the kernel tells the other end for as long as it lasts (SO_PEERCRED
//! and SO_PEERGROUPS of unix(7)): whoever called socketpair(2), listen(2) or connect(2).

use super::Place;
use crate::error::{Error, OnObject as _};
use crate::sys;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Maker {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    /// Effective ids.
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    #[prost(uint32, tag = "3")]
    pub gid: u32,
    #[prost(uint32, repeated, tag = "4")]
    pub groups: Vec<u32>,
}

/// A call by which the kernel remembers who made it.
#[derive(Clone, Copy, Debug)]
pub enum SocketCall<'a> {
    Pair {
        kind: i32,
    },
    Listen {
        socket: BorrowedFd<'a>,
        backlog: i32,
    },
    /// To a socket of the tree, whatever became of the permissions of its path.
    Connect {
        socket: BorrowedFd<'a>,
        address: &'a [u8],
    },
    /// To somebody outside of the tree, with no rights but those of its user.
    Reconnect {
        socket: BorrowedFd<'a>,
        address: &'a [u8],
    },
}

impl SocketCall<'_> {
    /// Makes the call in the thread that asks: the new descriptors, if any.
    pub(crate) fn run(&self) -> io::Result<Vec<OwnedFd>> {
        match *self {
            Self::Pair { kind } => sys::sock::pair(libc::AF_UNIX, kind).map(Vec::from),
            Self::Listen { socket, backlog } => {
                sys::sock::listen(socket, backlog).map(|()| Vec::new())
            }
            Self::Connect { socket, address } | Self::Reconnect { socket, address } => {
                sys::sock::connect(socket, address).map(|()| Vec::new())
            }
        }
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match *self {
            Self::Pair { .. } => None,
            Self::Listen { socket, .. }
            | Self::Connect { socket, .. }
            | Self::Reconnect { socket, .. } => Some(socket),
        }
    }

    /// Whether who makes it keeps the capabilities of root.
    pub(crate) fn keeps_capabilities(&self) -> bool {
        !matches!(self, Self::Reconnect { .. })
    }
}

/// Room for the groups of nearly everybody; NGROUPS_MAX is 65536.
const GROUPS: usize = 256;
const GROUPS_MAX: usize = 1 << 16;

impl Maker {
    /// Who made the other end of a connected socket; of a listening one, who listens.
    pub(crate) fn seen_by(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut room = [0; 12];
        sys::sock::read_option(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut room)?;
        let [pid, uid, gid] = <[u32; 3]>::try_from(words(&room)).unwrap_or_default();
        Ok(Self { pid: pid.cast_signed(), uid, gid, groups: peer_groups(socket)? })
    }

    /// What a process would leave behind if it made one now.
    pub(super) fn of_process(pid: i32) -> io::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let numbers = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect()
        };
        let effective = |name| numbers(name).get(1).copied().unwrap_or(u32::MAX);
        let (uid, gid) = (effective("Uid:"), effective("Gid:"));
        Ok(Self { pid, uid, gid, groups: numbers("Groups:") })
    }

    /// Has a call made, without waiting: there may be nobody who would let it come to its end.
    pub(super) fn ask(&self, call: SocketCall<'_>, at: &Place<'_>) -> Result<Vec<OwnedFd>, Error> {
        let Some(socket) = call.socket() else { return at.stage.socket_call(self, call) };
        let object = || at.object("unix socket");
        let flags = fcntl(socket, FcntlArg::F_GETFL).on("read the flags of", object)?;
        let flags = OFlag::from_bits_retain(flags);
        let set = |flags| fcntl(socket, FcntlArg::F_SETFL(flags)).on("set the flags of", object);
        set(flags | OFlag::O_NONBLOCK)?;
        let made = at.stage.socket_call(self, call);
        set(flags)?;
        made
    }

    /// As somebody outside of the tree has made it: a process that is not here, nor would be.
    pub(crate) fn make_outside(&self, call: SocketCall<'_>) -> io::Result<Vec<OwnedFd>> {
        if self.groups.len() > GROUPS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more groups than there can be",
            ));
        }
        let keeps = call.keeps_capabilities();
        sys::identity::run_as((self.uid, self.gid, &self.groups), keeps, || call.run())
    }
}

fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let read = |groups: usize| {
        let mut room = vec![0; groups * 4];
        let name = libc::SO_PEERGROUPS;
        let filled = sys::sock::read_option(socket, libc::SOL_SOCKET, name, &mut room)?;
        room.truncate(filled);
        Ok(words(&room))
    };
    match read(GROUPS) {
        Err(error) if is(&error, libc::ERANGE) => read(GROUPS_MAX),
        // Nobody has made anything yet.
        Err(error) if is(&error, libc::ENODATA) => Ok(Vec::new()),
        read => read,
    }
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |four: &[u8]| u32::from_ne_bytes(four.try_into().unwrap_or_default());
    bytes.chunks_exact(4).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_pair_is_made_as_somebody_else() {
        let (uid, gid, groups) = (1234, 5678, vec![4711, 4712]);
        let pid = std::process::id().cast_signed();
        let maker = Maker { pid, uid, gid, groups };
        let made = maker.make_outside(SocketCall::Pair { kind: libc::SOCK_STREAM }).unwrap();
        assert_eq!(Maker::seen_by(made[0].as_fd()).unwrap(), maker);
    }

    #[test]
    fn a_process_has_its_own_ids() {
        let us = Maker::of_process(std::process::id().cast_signed()).unwrap();
        let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        assert_eq!((us.uid, us.gid), ids);
    }
}
