//! Which unix socket is joined to which: the kernel's list, by sock_diag(7).

use crate::kinds::UnixSeen;
use crate::network::netlink::{Attributes, Message, Socket, attributes, number};
use nix::sched::{CloneFlags, setns};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// The lists of the network namespaces that were asked for, read once each.
#[derive(Debug, Default)]
pub(super) struct Peers {
    lists: HashMap<u64, HashMap<u64, UnixSeen>>,
    /// By process: 8 us each to find out, and a server has hundreds of sockets.
    namespaces: HashMap<i32, u64>,
}

impl Peers {
    /// What the list of the process's network namespace says of a socket. `None`: it is not in it.
    pub(super) fn of(&mut self, pid: i32, inode: u64) -> io::Result<Option<UnixSeen>> {
        let namespace = match self.namespaces.get(&pid) {
            Some(&namespace) => namespace,
            None => self.read_list(pid)?,
        };
        Ok(self.lists[&namespace].get(&inode).cloned())
    }

    fn read_list(&mut self, pid: i32) -> io::Result<u64> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = fs::metadata(&path)?.ino();
        if let std::collections::hash_map::Entry::Vacant(empty) = self.lists.entry(namespace) {
            empty.insert(list(&ask(&path, namespace)?)?);
        }
        self.namespaces.insert(pid, namespace);
        Ok(namespace)
    }
}

/// A netlink socket in that namespace. A thread goes there to make it, since a socket stays where
/// it was made; the thread itself ends.
fn ask(path: &str, namespace: u64) -> io::Result<Socket> {
    if fs::metadata("/proc/self/ns/net")?.ino() == namespace {
        return Socket::open(libc::NETLINK_SOCK_DIAG);
    }
    let there = File::open(path)?;
    let made = std::thread::spawn(move || {
        setns(there, CloneFlags::CLONE_NEWNET)?;
        Socket::open(libc::NETLINK_SOCK_DIAG)
    });
    made.join().map_err(|_| io::Error::other("the thread that asks for sockets panicked"))?
}

/// linux/sock_diag.h, linux/unix_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SHOW_NAME: u32 = 1;
const SHOW_VFS: u32 = 2;
const SHOW_PEER: u32 = 4;
const SHOW_ICONS: u32 = 8;
const SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_SHUTDOWN: u16 = 6;
/// TCP_LISTEN of include/net/tcp_states.h, which unix sockets use as well.
const LISTEN: u8 = 10;

/// A socket of the list, with what is only needed to compare it to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    unix: UnixSeen,
    kind: u8,
    /// Device and inode of its socket file.
    file: Option<(u32, u32)>,
}

fn list(netlink: &Socket) -> io::Result<HashMap<u64, UnixSeen>> {
    let list = netlink.list(&request())?;
    list.iter().map(|body| listed(body)).collect::<io::Result<_>>().map(joined)
}

/// Says of each socket what the others say of it.
fn joined(mut found: HashMap<u64, Listed>) -> HashMap<u64, UnixSeen> {
    // What is closed or not yet accepted has no inode, and all of these would be one.
    found.remove(&0);
    let mut names: HashMap<_, u32> = HashMap::new();
    let mut waiting = HashMap::new();
    for (inode, one) in &found {
        *names.entry(one.identity()).or_default() += 1;
        waiting.extend(one.unix.waiting.iter().map(|client| (*client, *inode)));
    }
    let known = |inode: u64, one: &Listed| {
        let peer = one.unix.peer.and_then(|peer| found.get(&peer));
        UnixSeen {
            shares_name: !one.unix.name.is_empty() && names[&one.identity()] > 1,
            waits_at: waiting.get(&inode).copied(),
            peer_name: peer.map(|peer| peer.unix.name.clone()).unwrap_or_default(),
            answered: peer.is_some_and(|peer| peer.unix.peer == Some(inode)),
            ..one.unix.clone()
        }
    };
    found.iter().map(|(inode, one)| (*inode, known(*inode, one))).collect()
}

impl Listed {
    /// Sockets of one type with one name: a path is one name as long as it is one file.
    fn identity(&self) -> (u8, Option<(u32, u32)>, &[u8]) {
        (self.kind, self.file, &self.unix.name)
    }
}

/// `unix_diag_req`: all sockets in all states, with all that we use.
fn request() -> Message {
    let family = u8::try_from(libc::AF_UNIX).unwrap_or_default();
    let show = SHOW_NAME | SHOW_VFS | SHOW_PEER | SHOW_ICONS | SHOW_RQLEN;
    let words = [u32::MAX, 0, show, u32::MAX, u32::MAX].map(u32::to_ne_bytes).concat();
    let fixed = [&[family, 0, 0, 0], &words[..]].concat();
    Message::new(SOCK_DIAG_BY_FAMILY, 0, &fixed, &Attributes::new())
}

/// `unix_diag_msg` and its attributes: a socket by its inode.
pub(super) fn listed(body: &[u8]) -> io::Result<(u64, Listed)> {
    let (Some(inode), Some(rest)) = (number(body, 4), body.get(16..)) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (kind, is_listening) = (body[1], body[2] == LISTEN);
    let mut one = Listed { kind, ..Listed::default() };
    for (kind, value) in attributes(rest) {
        match kind {
            UNIX_DIAG_NAME => one.unix.name = value.to_vec(),
            UNIX_DIAG_VFS => one.file = Some((word(value, 4)?, word(value, 0)?)),
            UNIX_DIAG_PEER => one.unix.peer = Some(word(value, 0)?.into()),
            UNIX_DIAG_ICONS => one.unix.waiting = words(value),
            UNIX_DIAG_RQLEN if is_listening => one.unix.backlog = word(value, 4)?,
            UNIX_DIAG_RQLEN => one.unix.unread = word(value, 4)?,
            UNIX_DIAG_SHUTDOWN => one.unix.shutdown = value.first().copied().unwrap_or(0),
            _ => {}
        }
    }
    Ok((inode.into(), one))
}

fn words(value: &[u8]) -> Vec<u64> {
    value.chunks_exact(4).filter_map(|four| Some(word(four, 0).ok()?.into())).collect()
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    number(bytes, at).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

    #[test]
    fn a_pair_names_each_other() {
        let [one, two] = sys::sock::pair(libc::AF_UNIX, libc::SOCK_STREAM).unwrap();
        let inode = |fd: &OwnedFd| nix::sys::stat::fstat(fd).unwrap().st_ino;
        let us = std::process::id().cast_signed();
        let mut peers = Peers::default();
        let seen = peers.of(us, inode(&one)).unwrap().unwrap();
        assert_eq!(seen.peer, Some(inode(&two)));
        assert_eq!(peers.of(us, inode(&two)).unwrap().unwrap().peer, Some(inode(&one)));
        assert!(seen.answered && !seen.shares_name && seen.waits_at.is_none());
    }

    #[test]
    fn a_listener_names_who_waits_and_an_accepted_socket_shares_its_name() {
        let us = std::process::id().cast_signed();
        let socket = || sys::sock::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
        let name = [&1u16.to_ne_bytes()[..], format!("\0peers-{us}").as_bytes()].concat();
        let (listener, first, second) = (socket(), socket(), socket());
        sys::sock::bind(listener.as_fd(), &name).unwrap();
        sys::sock::listen(listener.as_fd(), 7).unwrap();
        sys::sock::connect(first.as_fd(), &name).unwrap();
        let accepted = sys::sock::accept(listener.as_fd()).unwrap();
        sys::sock::connect(second.as_fd(), &name).unwrap();
        send(second.as_raw_fd(), b"early", MsgFlags::empty()).unwrap();

        let inode = |fd: &OwnedFd| nix::sys::stat::fstat(fd).unwrap().st_ino;
        let mut peers = Peers::default();
        let mut of = |fd: &OwnedFd| peers.of(us, inode(fd)).unwrap().unwrap();
        let heard = of(&listener);
        assert_eq!((heard.backlog, &*heard.waiting), (7, &[inode(&second)][..]));
        assert!(of(&accepted).shares_name);
        assert_eq!(of(&first).peer_name, name[2..]);
        let waits = of(&second);
        assert_eq!((waits.waits_at, waits.peer), (Some(inode(&listener)), Some(0)));
        assert!(waits.unread > 0);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error_and_not_a_panic() {
        for length in 0..16 {
            assert!(listed(&vec![1; length]).is_err(), "{length}");
        }
        let short_peer =
            [&[1; 16][..], &6u16.to_ne_bytes(), &UNIX_DIAG_PEER.to_ne_bytes(), &[7; 4]];
        assert!(listed(&short_peer.concat()).is_err());
    }
}
