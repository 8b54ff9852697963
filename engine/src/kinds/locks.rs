//! Locks on a file, as its descriptors' fdinfo shows them: flock(2) and OFD locks belong to a
//! description, POSIX locks to a process.

use super::{Owner, Tree};
use crate::args;
use crate::batch::Batch;
use crate::sys;
use nix::fcntl::{FcntlArg, fcntl};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Lock {
    /// "FLOCK", "OFDLCK" or "POSIX".
    #[prost(string, tag = "1")]
    style: String,
    #[prost(bool, tag = "2")]
    exclusive: bool,
    /// In bytes; a length of 0 reaches to the end of the file, however long it becomes.
    #[prost(uint64, tag = "3")]
    start: u64,
    #[prost(uint64, tag = "4")]
    length: u64,
    /// POSIX: who has it, and its lowest number for the description.
    #[prost(int32, tag = "5")]
    pid: i32,
    #[prost(int32, tag = "6")]
    fd: i32,
    /// The others: which description of the object has it.
    #[prost(uint32, tag = "7")]
    description: u32,
}

/// Every lock held through a description; an error names a line that is not understood (a lease).
pub(super) fn held(tree: &dyn Tree, index: usize, ordinal: u32) -> io::Result<Vec<Lock>> {
    let mut locks: Vec<Lock> = Vec::new();
    let mut asked = BTreeSet::new();
    for &(pid, fd) in tree.descriptors(index) {
        // The other numbers of the same process show the same lines.
        if !asked.insert(pid) {
            continue;
        }
        for line in tree.lock_lines(pid, fd) {
            let lock = parse(line)?;
            if lock.is_posix() {
                locks.push(Lock { pid, fd, ..lock });
            } else if !locks.iter().any(|other| other.is_same_of_description(&lock)) {
                locks.push(Lock { description: ordinal, ..lock });
            }
        }
    }
    Ok(locks)
}

/// "1: POSIX  ADVISORY  WRITE 4711 08:01:1835 0 EOF", see proc_locks(5).
fn parse(line: &str) -> io::Result<Lock> {
    let words: Vec<_> = line.split_whitespace().collect();
    let unknown = || io::Error::new(io::ErrorKind::Unsupported, format!("a lock {line:?}"));
    let [_, style @ ("FLOCK" | "OFDLCK" | "POSIX"), "ADVISORY", mode, _, _, start, end] = words[..]
    else {
        return Err(unknown());
    };
    let start = start.parse().map_err(|_| unknown())?;
    let length = match end {
        "EOF" => 0,
        end => end.parse::<u64>().map_err(|_| unknown())?.saturating_sub(start).saturating_add(1),
    };
    let exclusive = mode == "WRITE";
    Ok(Lock { style: style.to_owned(), exclusive, start, length, ..Lock::default() })
}

impl Lock {
    fn is_posix(&self) -> bool {
        self.style == "POSIX"
    }

    fn is_same_of_description(&self, other: &Self) -> bool {
        (&self.style, self.start, self.length) == (&other.style, other.start, other.length)
    }

    #[cfg(test)]
    pub(super) fn range_bytes(&self) -> [u8; 32] {
        bytes_of(&self.range().unwrap())
    }

    fn range(&self) -> io::Result<libc::flock> {
        let kind = if self.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        let narrow = |bytes| i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidData);
        Ok(libc::flock {
            l_type: i16::try_from(kind).map_err(|_| io::ErrorKind::InvalidData)?,
            l_whence: 0,
            l_start: narrow(self.start)?,
            l_len: narrow(self.length)?,
            l_pid: 0,
        })
    }
}

/// Takes the locks of one description, which need no particular process.
pub(super) fn take(locks: &[Lock], ordinal: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
    for lock in locks.iter().filter(|lock| lock.description as usize == ordinal) {
        match &*lock.style {
            "FLOCK" if lock.exclusive => sys::fd::flock(fd, libc::LOCK_EX)?,
            "FLOCK" => sys::fd::flock(fd, libc::LOCK_SH)?,
            "OFDLCK" => drop(fcntl(fd, FcntlArg::F_OFD_SETLK(&lock.range()?))?),
            // Taken by its process.
            "POSIX" => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(())
}

/// Lets a process take its own POSIX locks.
pub(super) fn take_own(
    locks: &[Lock],
    owner: Owner,
    kind: &'static str,
    batch: &mut Batch,
) -> io::Result<()> {
    let own = |lock: &&Lock| lock.is_posix() && (lock.pid, lock.fd) == (owner.pid, owner.fd);
    for lock in locks.iter().filter(own) {
        let range = batch.bytes(&bytes_of(&lock.range()?));
        let args = args![owner.fd, libc::F_SETLK, range];
        batch.call("lock", &owner.object(kind), libc::SYS_fcntl, args);
    }
    Ok(())
}

/// `struct flock` of x86-64 and aarch64: two shorts, padding, two offsets, a pid, padding.
fn bytes_of(range: &libc::flock) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0..2].copy_from_slice(&range.l_type.to_ne_bytes());
    bytes[2..4].copy_from_slice(&range.l_whence.to_ne_bytes());
    bytes[8..16].copy_from_slice(&range.l_start.to_ne_bytes());
    bytes[16..24].copy_from_slice(&range.l_len.to_ne_bytes());
    bytes[24..28].copy_from_slice(&range.l_pid.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_and_a_whole_file_are_understood() {
        let lock = parse("1: POSIX  ADVISORY  READ 4711 08:01:1835 5 14").unwrap();
        assert_eq!((lock.exclusive, lock.start, lock.length), (false, 5, 10));
        let lock = parse("2: FLOCK  ADVISORY  WRITE 4711 08:01:1835 0 EOF").unwrap();
        assert_eq!((lock.exclusive, lock.start, lock.length), (true, 0, 0));
    }

    #[test]
    fn a_lease_is_not() {
        assert!(parse("1: LEASE  ACTIVE    READ 4711 08:01:1835 0 EOF").is_err());
    }
}
