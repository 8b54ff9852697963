//! Which unix socket is joined to which: the kernel's list, by sock_diag(7).

use crate::kinds::UnixSeen;
use crate::sys;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

/// The lists of the network namespaces that were asked for, read once each.
#[derive(Debug, Default)]
pub(super) struct Peers {
    lists: HashMap<u64, HashMap<u64, UnixSeen>>,
}

impl Peers {
    /// What the list of the process's network namespace says of a socket. `None`: it is not in it.
    pub(super) fn of(&mut self, pid: i32, inode: u64) -> io::Result<Option<UnixSeen>> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = fs::metadata(&path)?.ino();
        if let std::collections::hash_map::Entry::Vacant(empty) = self.lists.entry(namespace) {
            empty.insert(list(&ask(&path, namespace)?)?);
        }
        Ok(self.lists[&namespace].get(&inode).cloned())
    }
}

/// A netlink socket in that namespace. A thread goes there to make it, since a socket stays where
/// it was made; the thread itself ends.
fn ask(path: &str, namespace: u64) -> io::Result<OwnedFd> {
    if fs::metadata("/proc/self/ns/net")?.ino() == namespace {
        return diagnosis();
    }
    let there = File::open(path)?;
    let made = std::thread::spawn(move || {
        setns(there, CloneFlags::CLONE_NEWNET)?;
        diagnosis()
    });
    made.join().map_err(|_| io::Error::other("the thread that asks for sockets panicked"))?
}

/// NETLINK_SOCK_DIAG of netlink(7).
const SOCK_DIAG: i32 = 4;

fn diagnosis() -> io::Result<OwnedFd> {
    sys::sock::socket(libc::AF_NETLINK, libc::SOCK_RAW, SOCK_DIAG)
}

/// linux/sock_diag.h, linux/unix_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SHOW_NAME: u32 = 1;
const SHOW_PEER: u32 = 4;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_SHUTDOWN: u16 = 6;

fn list(netlink: &OwnedFd) -> io::Result<HashMap<u64, UnixSeen>> {
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut found = HashMap::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read_part(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
}

/// `nlmsghdr` and `unix_diag_req`: all sockets in all states, with name and peer.
fn request() -> Vec<u8> {
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    let mut bytes = 40u32.to_ne_bytes().to_vec();
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([1, 0, 0, 0]);
    for word in [u32::MAX, 0, SHOW_NAME | SHOW_PEER, u32::MAX, u32::MAX] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

/// True when this part was the last.
fn read_part(mut part: &[u8], found: &mut HashMap<u64, UnixSeen>) -> io::Result<bool> {
    while part.len() >= 16 {
        let length = word(part, 0)? as usize;
        let kind = i32::from(half(part, 4)?);
        let body = part.get(16..length).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = word(body, 0)?.cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            _ => drop(found.insert(word(body, 4)?.into(), describe(body)?)),
        }
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `unix_diag_msg` and its attributes.
fn describe(body: &[u8]) -> io::Result<UnixSeen> {
    let mut unix = UnixSeen::default();
    let mut attributes = body.get(16..).unwrap_or_default();
    while attributes.len() >= 4 {
        let length = usize::from(half(attributes, 0)?);
        let value = attributes.get(4..length).ok_or(io::ErrorKind::InvalidData)?;
        match half(attributes, 2)? {
            UNIX_DIAG_NAME => unix.name = value.to_vec(),
            UNIX_DIAG_PEER => unix.peer = Some(word(value, 0)?.into()),
            UNIX_DIAG_SHUTDOWN => unix.shutdown = value.first().copied().unwrap_or(0),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(unix)
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_ne_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn half(bytes: &[u8], at: usize) -> io::Result<u16> {
    let two = bytes.get(at..at + 2).and_then(|two| two.try_into().ok());
    two.map(u16::from_ne_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_names_each_other() {
        let [one, two] = sys::sock::pair(libc::AF_UNIX, libc::SOCK_STREAM).unwrap();
        let inode = |fd: &OwnedFd| nix::sys::stat::fstat(fd).unwrap().st_ino;
        let us = std::process::id().cast_signed();
        let mut peers = Peers::default();
        let seen = peers.of(us, inode(&one)).unwrap().unwrap();
        assert_eq!(seen.peer, Some(inode(&two)));
        assert_eq!(peers.of(us, inode(&two)).unwrap().unwrap().peer, Some(inode(&one)));
    }

    #[test]
    fn a_part_that_is_cut_off_is_an_error_and_not_a_panic() {
        let mut part = request();
        part[0] = 200;
        assert!(read_part(&part, &mut HashMap::new()).is_err());
    }
}
