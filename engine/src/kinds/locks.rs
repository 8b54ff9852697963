//! Locks on a file, as its descriptors' fdinfo shows them: flock(2) and OFD locks belong to a
//! description, POSIX locks to a process.

use super::{Owner, Tree};
use crate::args;
use crate::batch::Batch;
use crate::sys;
use nix::fcntl::{FcntlArg, fcntl};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::{fmt, io};

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
pub(super) fn parse(line: &str) -> io::Result<Lock> {
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

    /// Whether it could be had through this descriptor. A flock is had for an instant, because
    /// there is no other way to ask; the others are only asked for (F_OFD_GETLK sees both styles).
    fn is_free(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        if self.style == "FLOCK" {
            return match self.take_flock(fd) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                taken => taken.map(|()| true),
            };
        }
        let mut range = self.range()?;
        fcntl(fd, FcntlArg::F_OFD_GETLK(&mut range))?;
        Ok(i32::from(range.l_type) == libc::F_UNLCK)
    }

    fn take(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match &*self.style {
            "FLOCK" => self.take_flock(fd),
            "OFDLCK" => {
                fcntl(fd, FcntlArg::F_OFD_SETLK(&self.range()?))?;
                Ok(())
            }
            // Taken by its process.
            "POSIX" => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// It was free when it was looked for, before the freeze.
    fn explained(&self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                let what = format!("somebody took the {self} since the tree was looked at");
                io::Error::new(error.kind(), what)
            }
            _ => error,
        }
    }

    fn take_flock(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        sys::fd::flock(fd, if self.exclusive { libc::LOCK_EX } else { libc::LOCK_SH })
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

/// As the operator knows it: "exclusive POSIX lock on bytes 5 to 14".
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.exclusive { "exclusive" } else { "shared" };
        let style = match &*self.style {
            "FLOCK" => return write!(f, "{mode} flock"),
            "POSIX" => "POSIX lock",
            _ => "open file description lock",
        };
        let start = self.start;
        match self.start.saturating_add(self.length.saturating_sub(1)) {
            _ if self.length == 0 => write!(f, "{mode} {style} from byte {start} on"),
            end => write!(f, "{mode} {style} on bytes {start} to {end}"),
        }
    }
}

pub(super) const RELEASE: &str = "Let the program release it for the move, or keep the file on \
                                  storage whose locks each host has for itself.";

/// The locks that somebody holds on this host, each with who has it on the source and why that is
/// in the way. Storage that both hosts share shows us the locks of the very tree that is to come:
/// it holds them until it has moved, and could only move without them.
///
/// `reach` opens the file anew for each, so that what was tried is let go at once.
pub(super) fn conflicts(
    locks: &[Lock],
    owner: Owner,
    reach: impl Fn() -> io::Result<File>,
) -> impl Iterator<Item = (Owner, String)> {
    locks.iter().filter_map(move |lock| {
        let holder = if lock.is_posix() { Owner { pid: lock.pid, fd: lock.fd } } else { owner };
        match reach().and_then(|file| lock.is_free(file.as_fd())) {
            Ok(true) => None,
            Ok(false) => Some((holder, taken(lock))),
            Err(error) => {
                Some((holder, format!("is held with a lock ({lock}) that fails there: {error}")))
            }
        }
    })
}

fn taken(lock: &Lock) -> String {
    format!(
        "is held with a lock ({lock}) that is taken on the destination: both hosts share the file \
         and its locks, or somebody there holds one"
    )
}

/// Takes the locks of one description, which need no particular process.
pub(super) fn take(locks: &[Lock], ordinal: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut of_it = locks.iter().filter(|lock| lock.description as usize == ordinal);
    of_it.try_for_each(|lock| lock.take(fd).map_err(|error| lock.explained(error)))
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
        assert_eq!(lock.to_string(), "shared POSIX lock on bytes 5 to 14");
        let lock = parse("2: FLOCK  ADVISORY  WRITE 4711 08:01:1835 0 EOF").unwrap();
        assert_eq!((lock.exclusive, lock.start, lock.length), (true, 0, 0));
    }

    #[test]
    fn one_that_is_taken_in_the_last_moment_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().lock().unwrap();
        let lock = Lock { style: "FLOCK".to_owned(), ..Lock::default() };
        let error = take(&[lock], 0, file.reopen().unwrap().as_fd()).unwrap_err();
        assert!(error.to_string().contains("somebody took the shared flock"), "{error}");
    }

    #[test]
    fn a_lease_is_not() {
        assert!(parse("1: LEASE  ACTIVE    READ 4711 08:01:1835 0 EOF").is_err());
    }
}
