//! A file that decides whom we trust: read with a bound, and only if nobody else can write it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Who else may write the file, or its directory, would decide whom we trust.
pub(crate) const WRITABLE_BY_OTHERS: u32 = 0o022;
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
    /// Who may write the directory decides which files are in it.
    #[error(
        "refuse {}: others may write the directory {}; run: chmod go-w {}",
        path.display(), directory.display(), directory.display()
    )]
    ExposedDirectory {
        /// The file.
        path: PathBuf,
        /// Where it is.
        directory: PathBuf,
    },
    /// The directory belongs to somebody who is neither root nor us.
    #[error(
        "refuse {}: the directory {} belongs to user {owner}; run: chown root {}",
        path.display(), directory.display(), directory.display()
    )]
    ForeignDirectory {
        /// The file.
        path: PathBuf,
        /// Where it is.
        directory: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Somebody meant it to be there, so it does not count as a file that is not there.
    #[error("{} is a symbolic link that leads nowhere", path.display())]
    Dangling {
        /// The link.
        path: PathBuf,
    },
    /// It is a directory, a fifo, a device, or too large.
    #[error(
        "refuse {}: it is not a regular file of at most {} MiB", path.display(), bytes_max >> 20
    )]
    NotAPlainFile {
        /// The file.
        path: PathBuf,
        /// What it may have.
        bytes_max: u64,
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
    /// There is something where something new was to be made.
    #[error("there is {} already, and it stays as it is", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// What is in the file is not what belongs there.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: ContentProblem,
    },
    /// The certificate in the file is not good.
    #[error("take the certificate in {}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: crate::Refused,
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

/// What is wrong with a file of keys or certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentProblem {
    /// It has no PEM section where one is needed.
    #[error("there is no private key in it")]
    NoKey,
    /// A public key is needed.
    #[error(
        "there is no public key of Ed25519 or ECDSA in it, as `migrate identity --public` prints it"
    )]
    NoPublicKey,
    /// A certificate is the host's and the CA's.
    #[error("there must be two certificates in it: one of a host, and that of its CA")]
    NotTwoCertificates,
    /// The certificate is of somebody else.
    #[error("its certificate is not for a key of this host")]
    ForeignKey,
    /// There is nothing to put in use.
    #[error("there is none; `migrate identity rotate` makes one")]
    NoNextKey,
}

/// What is wrong with one line of a file that says whom we trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// The place of the fingerprint holds something else.
    #[error(transparent)]
    Fingerprint(#[from] crate::NotAFingerprint),
    /// A host without its fingerprint.
    #[error("a host without a fingerprint; expected HOST FINGERPRINT")]
    HostAlone,
    /// A marker that means nothing.
    #[error("an unknown marker; expected @cert-authority or @revoked")]
    Marker,
    /// Not a pattern.
    #[error("not a pattern of host names, as *.example or hosta,hostb")]
    Pattern,
    /// Not a number.
    #[error("not a serial number; expected: serial NUMBER, or: serial FIRST-LAST")]
    Serial,
    /// More words than the line has places for.
    #[error("unexpected text at its end; comments begin with #")]
    Trailing,
}

impl TrustFileError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether the file is simply not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads `path` whole if no user beside its owner has one of the `forbidden` permission bits, and
/// nobody else can put another file in its place.
pub(crate) fn read(path: &Path, forbidden: u32) -> Result<String, TrustFileError> {
    read_long(path, forbidden, BYTES_MAX)
}

/// [`read`], of a file that grows.
pub(crate) fn read_long(
    path: &Path,
    forbidden: u32,
    bytes_max: u64,
) -> Result<String, TrustFileError> {
    check_directory(path)?;
    open_and_read(path, forbidden, bytes_max)
}

/// Reads a file of `directory` that decides what others may do here, if only root can write it;
/// `None` where there is none.
pub fn read_if_there(directory: &Path, name: &str) -> Result<Option<String>, TrustFileError> {
    match read(&directory.join(name), WRITABLE_BY_OTHERS) {
        Err(error) if error.is_absent() => Ok(None),
        read => read.map(Some),
    }
}

/// Reads a file that an operator has named, whole and with the same bound, whoever may write it.
pub fn read_small(path: &Path) -> Result<String, TrustFileError> {
    open_and_read(path, 0, BYTES_MAX)
}

/// Checks what it opened and not what the name leads to later. O_NONBLOCK: a fifo put in the place
/// of the file must not hang us (open(2)).
fn open_and_read(path: &Path, forbidden: u32, bytes_max: u64) -> Result<String, TrustFileError> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|source| not_found(path, "open", source))?;
    check(&file, path, forbidden, bytes_max)?;
    let mut text = String::new();
    file.take(bytes_max).read_to_string(&mut text).map_err(TrustFileError::io("read", path))?;
    Ok(text)
}

/// A name that leads nowhere is there: only what has no name may count as a file that says nothing.
fn not_found(path: &Path, action: &'static str, source: io::Error) -> TrustFileError {
    match source.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_ok() {
        true => TrustFileError::Dangling { path: path.to_owned() },
        false => TrustFileError::io(action, path)(source),
    }
}

/// Of the directory that has the name: who may write there can put another file, or a link, in the
/// place of the file. What a link leads to was chosen by who made it, and is checked as a file.
fn check_directory(path: &Path) -> Result<(), TrustFileError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(".")).to_owned();
    let about = directory.metadata().map_err(|source| not_found(&directory, "look at", source))?;
    let path = path.to_owned();
    if !is_ours(about.uid()) {
        return Err(TrustFileError::ForeignDirectory { path, directory, owner: about.uid() });
    }
    match about.mode() & WRITABLE_BY_OTHERS {
        0 => Ok(()),
        _ => Err(TrustFileError::ExposedDirectory { path, directory }),
    }
}

fn check(file: &File, path: &Path, forbidden: u32, bytes_max: u64) -> Result<(), TrustFileError> {
    let about = file.metadata().map_err(TrustFileError::io("stat", path))?;
    let path = path.to_owned();
    if !about.is_file() || about.len() > bytes_max {
        return Err(TrustFileError::NotAPlainFile { path, bytes_max });
    }
    if !is_ours(about.uid()) {
        return Err(TrustFileError::ForeignOwner { path, owner: about.uid() });
    }
    let mode = about.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(TrustFileError::Exposed { path, mode, wanted: mode & !forbidden });
    }
    Ok(())
}

fn is_ours(owner: u32) -> bool {
    owner == 0 || owner == nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    const NAME: &str = "revoked_hosts";

    fn home() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn only_what_has_no_name_is_absent() {
        let home = home();
        assert_eq!(read_if_there(home.path(), NAME).unwrap(), None);
        assert_eq!(read_if_there(&home.path().join("none"), NAME).unwrap(), None);
        symlink("nowhere", home.path().join(NAME)).unwrap();
        let refused = read_if_there(home.path(), NAME).unwrap_err();
        assert!(matches!(refused, TrustFileError::Dangling { .. }), "{refused}");
        assert!(refused.to_string().contains(NAME), "{refused}");
        fs::write(home.path().join("nowhere"), "x").unwrap();
        assert_eq!(read_if_there(home.path(), NAME).unwrap().as_deref(), Some("x"));
    }

    #[test]
    fn a_directory_that_is_a_link_to_nowhere_is_not_absent() {
        let home = home();
        let directory = home.path().join("etc");
        symlink("nowhere", &directory).unwrap();
        let refused = read_if_there(&directory, NAME).unwrap_err();
        assert!(matches!(&refused, TrustFileError::Dangling { path } if *path == directory));
    }

    #[test]
    fn a_directory_that_others_may_write_or_own_is_refused_with_advice() {
        let home = home();
        fs::write(home.path().join(NAME), "").unwrap();
        for mode in [0o775, 0o757, 0o1777] {
            fs::set_permissions(home.path(), Permissions::from_mode(mode)).unwrap();
            let refused = read_if_there(home.path(), NAME).unwrap_err();
            assert!(matches!(refused, TrustFileError::ExposedDirectory { .. }), "{mode:o}");
            assert!(refused.to_string().contains("chmod go-w "), "{refused}");
        }
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(read_if_there(home.path(), NAME).is_ok());
        std::os::unix::fs::chown(home.path(), Some(1000), None).unwrap();
        let refused = read_if_there(home.path(), NAME).unwrap_err();
        assert!(matches!(refused, TrustFileError::ForeignDirectory { owner: 1000, .. }));
        assert!(refused.to_string().contains("chown root "), "{refused}");
    }
}
