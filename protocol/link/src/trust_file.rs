//! A file that decides whom we trust: read with a bound, and only if nobody else can write it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Ten thousand hosts fit; a device or a runaway file does not.
const BYTES_MAX: u64 = 1 << 20;

/// Why a file that decides about trust was not used.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// A system call failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else may read or write it.
    #[error("refuse {}: its mode is {mode:04o}; run: chmod {wanted:04o} {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Bits that would be accepted.
        wanted: u32,
    },
    /// It belongs to somebody who is neither root nor us.
    #[error("refuse {}: it belongs to user {owner}, not to root", path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// It is a directory, a device, or larger than 1 MiB.
    #[error("refuse {}: it is not a regular file of at most 1 MiB", path.display())]
    NotAPlainFile {
        /// The file.
        path: PathBuf,
    },
    /// A line means nothing.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// The private key cannot be used.
    #[error("read the private key in {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: rcgen::Error,
    },
}

/// What is wrong with one line of `authorized_hosts` or `known_hosts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// The place of the fingerprint holds something else.
    #[error(transparent)]
    Fingerprint(#[from] crate::NotAFingerprint),
    /// A host without its fingerprint.
    #[error("a host without a fingerprint; expected HOST FINGERPRINT")]
    HostAlone,
    /// More words than the line has places for.
    #[error("unexpected text after the fingerprint; comments begin with #")]
    Trailing,
}

impl TrustFileError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether the file is simply not there.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads `path` whole if no user beside its owner has one of the `forbidden` permission bits.
///
/// Checks what it opened and not what the name leads to later. O_NONBLOCK: a fifo put in the place
/// of the file must not hang us (open(2)).
pub(crate) fn read(path: &Path, forbidden: u32) -> Result<String, TrustFileError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(TrustFileError::io("open", path))?;
    check(&file, path, forbidden)?;
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(TrustFileError::io("read", path))?;
    Ok(text)
}

fn check(file: &File, path: &Path, forbidden: u32) -> Result<(), TrustFileError> {
    let about = file.metadata().map_err(TrustFileError::io("stat", path))?;
    let path = path.to_owned();
    if !about.is_file() || about.len() > BYTES_MAX {
        return Err(TrustFileError::NotAPlainFile { path });
    }
    if about.uid() != 0 && about.uid() != nix::unistd::geteuid().as_raw() {
        return Err(TrustFileError::ForeignOwner { path, owner: about.uid() });
    }
    let mode = about.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(TrustFileError::Exposed { path, mode, wanted: mode & !forbidden });
    }
    Ok(())
}
