//! The name of a unix socket, and its file where it has one.
//!
//! The kernel keeps the name as the program gave it to bind(2), relative or through links, and
//! whoever asks gets these very bytes. So a socket is bound again under the same bytes, from the
//! place from which they lead to its file. Where they lead to no file any more (it was removed, or
//! the socket was accepted and has its listener's name), they are bound in a file system that
//! nobody else can see.

mod way;

use super::{Findings, Open, Seen, UnixSeen};
use crate::paths;
use crate::sys;
use crate::sys::seclusion::{As, nowhere, run_in};
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
pub(super) use way::Way;
use way::is_used;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Name {
    /// Without the zero that ends a path. An abstract name begins with a zero: unix(7).
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    file: Option<SocketFile>,
}

/// The file that a name leads to.
#[derive(Clone, PartialEq, prost::Message)]
struct SocketFile {
    #[prost(string, tag = "1")]
    path: String,
    /// Permissions, without the type.
    #[prost(uint32, tag = "2")]
    mode: u32,
    #[prost(uint32, tag = "3")]
    uid: u32,
    #[prost(uint32, tag = "4")]
    gid: u32,
}

/// From where a name leads to its file.
#[derive(Debug, PartialEq, Eq)]
enum Base<'a> {
    /// The root of this host.
    Host,
    /// That directory, as the root or as the working directory of whoever bound it.
    Directory(&'a str, As),
}

/// For people: most sockets have no name.
pub(super) fn described(name: Option<&Name>) -> String {
    name.map_or_else(|| "without a name".to_owned(), Name::shown)
}

/// The greatest `sun_path`.
const NAME_BYTES_MAX: usize = 108;

impl Name {
    /// `None` when it has none. A name of which there is no file is still one.
    pub(super) fn read(open: &Open<'_>) -> io::Result<Option<Self>> {
        let Some(unix) = named(open.seen) else { return Ok(None) };
        let bytes = trimmed(&unix.name);
        let is_abstract = bytes.first() == Some(&0);
        let file = if is_abstract || unix.shares_name && !open.seen.is_listening() {
            None
        } else {
            live_file(open.local)?
        };
        let name = Self { bytes, file };
        name.base().ok_or_else(|| io::Error::other("its path does not end with its name"))?;
        Ok(Some(name))
    }

    /// That of somebody outside of the tree.
    pub(super) fn outside(bytes: &[u8]) -> Self {
        Self { bytes: trimmed(bytes), file: None }
    }

    /// Where a connection to it leads, if that is a place in the file tree.
    pub(super) fn outside_path(&self) -> Option<String> {
        (!self.is_abstract()).then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }

    /// As people write it.
    pub(super) fn shown(&self) -> String {
        super::seen::shown(&self.bytes)
    }

    pub(super) fn is_abstract(&self) -> bool {
        self.bytes.first() == Some(&0)
    }

    pub(super) fn path(&self) -> Option<String> {
        self.file.as_ref().map(|file| file.path.clone())
    }

    /// The `sockaddr_un` that the program gave.
    pub(super) fn address(&self) -> io::Result<Vec<u8>> {
        if self.bytes.is_empty() || self.bytes.len() > NAME_BYTES_MAX {
            return Err(invalid("a name of that length cannot be"));
        }
        let family = u16::try_from(libc::AF_UNIX).unwrap_or_default();
        Ok([&family.to_ne_bytes()[..], &self.bytes].concat())
    }

    fn base(&self) -> Option<Base<'_>> {
        let Some(file) = &self.file else { return Some(Base::Host) };
        let name = self.bytes.strip_prefix(b"./").unwrap_or(&self.bytes);
        let taken_as = if name.first() == Some(&b'/') { As::Root } else { As::WorkingDirectory };
        let before = std::str::from_utf8(name).ok().and_then(|name| file.path.strip_suffix(name));
        match (before, taken_as) {
            (Some(""), As::Root) => Some(Base::Host),
            (Some(before), As::Root) => Some(Base::Directory(before, As::Root)),
            (Some(before), As::WorkingDirectory) if before.ends_with('/') => {
                Some(Base::Directory(before, As::WorkingDirectory))
            }
            // Through a link: `/var/run/daemon.sock`.
            (None, As::Root) => self.parents_are_one(file).then_some(Base::Host),
            _ => None,
        }
    }

    /// Whether the name, looked up on this host, and the path lead to one directory.
    fn parents_are_one(&self, file: &SocketFile) -> bool {
        let inode = |path: &[u8]| {
            let found = paths::look(parent(path)).and_then(|found| found.metadata()).ok()?;
            Some((found.dev(), found.ino()))
        };
        let through_name = inode(&self.bytes);
        through_name.is_some() && through_name == inode(file.path.as_bytes())
    }

    /// Gives a socket its name, and makes its file. A file that a socket left behind is replaced.
    pub(super) fn bind(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        match &self.file {
            _ if self.is_abstract() => sys::sock::bind(socket, &self.address()?),
            Some(file) => self.bind_to_file(file, socket),
            None => self.bind_apart(socket),
        }
    }

    /// Gives a socket its name where nobody sees it. An abstract name is everybody's.
    pub(super) fn bind_apart(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let address = self.address()?;
        if self.is_abstract() {
            return sys::sock::bind(socket, &address);
        }
        run_in(nowhere()?, As::Root, || {
            let directory = OsStr::from_bytes(parent(&self.bytes));
            fs::create_dir_all(Path::new("/").join(directory))?;
            sys::sock::bind(socket, &address)
        })
    }

    fn bind_to_file(&self, file: &SocketFile, socket: BorrowedFd<'_>) -> io::Result<()> {
        let path = file.path.as_bytes();
        let directory = paths::look(parent(path))?;
        if let Some(obstacle) = obstacle(path)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, obstacle));
        }
        match unlinkat(&directory, base_name(path), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        self.bind_from_base(socket)?;
        file.own(&sys::sock::file_of(socket)?, &directory)
    }

    fn bind_from_base(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let address = self.address()?;
        let base = self.base().ok_or_else(|| invalid("its name does not lead to its path here"))?;
        match base {
            Base::Host => sys::sock::bind(socket, &address),
            Base::Directory(directory, taken_as) => {
                let whole = format!("{}/", directory.trim_end_matches('/'));
                let directory = paths::look(whole.as_bytes())?;
                run_in(directory, taken_as, || sys::sock::bind(socket, &address))
            }
        }
    }

    /// Why this host cannot give a socket of this type that name, and what to do.
    pub(super) fn lacks(&self, kind: i32) -> Option<(String, &'static str)> {
        let shown = self.shown();
        let stands = |why: String| Some((why, "Stop what has it here, or remove it."));
        let Some(file) = &self.file else {
            let taken = self.is_abstract() && self.is_taken(kind);
            return stands(format!("cannot be bound to {shown} here: it is taken"))
                .filter(|_| taken);
        };
        let path = file.path.as_bytes();
        if let Err(error) = paths::look(parent(path)) {
            let why = format!("cannot be bound to {shown} here: {}: {error}", file.path);
            return Some((why, "Make its directory here."));
        }
        match obstacle(path) {
            Ok(None) => None,
            Ok(Some(why)) => stands(format!("cannot be bound to {shown} here: {why}")),
            Err(error) => stands(format!("cannot be bound to {shown} here: {error}")),
        }
    }

    fn is_taken(&self, kind: i32) -> bool {
        let bound = || {
            let trial = sys::sock::socket(libc::AF_UNIX, kind, 0)?;
            sys::sock::bind(trial.as_fd(), &self.address()?)
        };
        bound().is_err()
    }
}

/// Refuses a name from which nobody could find its file again.
pub(super) fn examine(seen: &Seen, kind: &'static str, findings: &mut Findings) {
    let read = || {
        let local = seen.steal()?;
        Name::read(&Open { seen, local: local.as_fd(), index: 0 })
    };
    match read() {
        // Of one that was closed meanwhile there is nothing to say.
        Err(error) if error.raw_os_error().is_none() => findings.refuse(
            seen.object(kind),
            format!("has a name that cannot be bound again: {error}"),
            "Let the program bind it to an absolute path.",
        ),
        _ => {}
    }
}

impl SocketFile {
    /// Gives the file that was just made its owner, if it is where it should be: a directory on
    /// the way may have become a link to elsewhere meanwhile.
    fn own(&self, place: &OwnedFd, directory: &File) -> io::Result<()> {
        let (made, name) = (fstat(place)?, base_name(self.path.as_bytes()));
        let there = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if inode(&made) != inode(&there) {
            return Err(invalid("a directory of its path is being changed at this moment"));
        }
        let own = format!("/proc/self/fd/{}", place.as_raw_fd());
        std::os::unix::fs::chown(&own, Some(self.uid), Some(self.gid))?;
        fs::set_permissions(own, Permissions::from_mode(self.mode & 0o7777))
    }
}

fn named(seen: &Seen) -> Option<&UnixSeen> {
    let unix = seen.socket.as_ref()?.unix.as_ref()?;
    (!unix.name.is_empty()).then_some(unix)
}

/// A path as the kernel keeps it ends in a zero.
fn trimmed(name: &[u8]) -> Vec<u8> {
    let path = name.first().is_some_and(|&byte| byte != 0);
    let end = if path { name.iter().position(|&byte| byte == 0) } else { None };
    name[..end.unwrap_or(name.len())].to_vec()
}

/// The file of a socket, unless its path leads to something else by now, or to nothing.
fn live_file(socket: BorrowedFd<'_>) -> io::Result<Option<SocketFile>> {
    let place = sys::sock::file_of(socket)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    let (found, there) = (fstat(&place)?, fs::symlink_metadata(&path));
    if !there.is_ok_and(|there| (there.dev(), there.ino()) == inode(&found)) {
        return Ok(None);
    }
    let path = path.into_os_string().into_string();
    let path = path.map_err(|_| io::Error::other("its path is not UTF-8"))?;
    let mode = found.st_mode & 0o7777;
    Ok(Some(SocketFile { path, mode, uid: found.st_uid, gid: found.st_gid }))
}

fn inode(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// What is at a path that is no socket file, or one that somebody still uses.
fn obstacle(path: &[u8]) -> io::Result<Option<String>> {
    let shown = String::from_utf8_lossy(path).into_owned();
    let found = match paths::look(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if found.metadata()?.mode() & libc::S_IFMT != libc::S_IFSOCK {
        return Ok(Some(format!("{shown} is something else here")));
    }
    Ok(is_used(&found)?.then(|| format!("{shown} is in use here")))
}

/// The directory of a path, with the slash that makes a link in its last place be followed; that
/// of a relative name without one is the working directory.
fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    slash.map_or(b"", |slash| &path[..=slash])
}

fn base_name(path: &[u8]) -> &OsStr {
    let start = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    OsStr::from_bytes(&path[start..])
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
