//! Opening what a path in an image names, as root, on a host that the image may mean to harm.
//!
//! The source's kernel showed the path, so it is absolute and has no `.` and no `..`. What it leads
//! to here is decided by this rule:
//!
//! - Symbolic links of this host are followed: its administrator made them (`/lib` is one on many
//!   systems). A link in the last place is what it is, and not what it leads to.
//! - Magic links are never followed (`/proc/1/root`, `/proc/self/fd/3`, `/proc/PID/cwd`): they lead
//!   into other processes and past every mount. openat2(2), Linux 5.6.
//! - Of procfs a tree gets what belongs to its own processes, and beyond that only for reading what
//!   everybody may read. `/proc/PID/mem` and `/proc/sys` are the whole host otherwise.
//! - A path is looked at before it is opened, by O_PATH, which touches nothing: opening a device
//!   can rewind a tape or start a watchdog, and opening a fifo can wait for ever.

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whose files a path may lead to, beside those of the host.
pub(crate) type IsOfTree<'a> = &'a dyn Fn(i32) -> bool;

/// A kernel never shows a path that is relative, or that goes up.
pub(crate) fn check(path: &[u8]) -> io::Result<()> {
    let climbs =
        |path: &[u8]| path.split(|byte| *byte == b'/').any(|part| part == b".." || part == b".");
    if path.first() != Some(&b'/') || path.contains(&0) || climbs(path) {
        let shown = String::from_utf8_lossy(path).into_owned();
        return Err(invalid(format!("{shown:?} is not an absolute path without detours")));
    }
    Ok(())
}

/// The file at a path, if it is of this shape (S_IFMT of inode(7)), opened with these flags.
pub(crate) fn open(
    path: &[u8],
    shape: u32,
    flags: i32,
    is_of_tree: IsOfTree<'_>,
) -> io::Result<File> {
    let place = look(path)?;
    let found = place.metadata()?;
    if found.mode() & libc::S_IFMT != shape {
        return Err(invalid(format!("{} is something else here", shown(path))));
    }
    if fstatfs(&place)?.filesystem_type() == PROC_SUPER_MAGIC {
        check_procfs(path, flags, &found, is_of_tree)?;
    }
    let opened = at(path, only_possible(flags), Mode::empty())?;
    let (there, here) = (opened.metadata()?, found);
    if (there.dev(), there.ino()) != (here.dev(), here.ino()) {
        return Err(invalid(format!("{} is being changed at this moment", shown(path))));
    }
    Ok(opened)
}

/// openat2(2) refuses what open(2) passes over.
fn only_possible(flags: i32) -> OFlag {
    let with_place = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    OFlag::from_bits_retain(match flags & libc::O_PATH {
        0 => flags & !libc::O_CREAT & !libc::O_EXCL & !libc::O_TRUNC | libc::O_NOCTTY,
        _ => flags & with_place,
    })
}

/// A place in the tree of files, without access to what is there.
pub(crate) fn look(path: &[u8]) -> io::Result<File> {
    at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())
}

/// The place of a directory, through links that this host has.
pub(crate) fn directory(path: &[u8]) -> io::Result<File> {
    at(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
}

/// A regular file that no process of the tree is needed for: code, or what is mapped.
pub(crate) fn open_regular(path: &[u8], flags: i32) -> io::Result<OwnedFd> {
    open(path, libc::S_IFREG, flags, &|_| false).map(OwnedFd::from)
}

/// A new file, which must not be there yet.
pub(crate) fn create(path: &[u8]) -> io::Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
    at(path, flags, Mode::S_IRUSR | Mode::S_IWUSR)
}

/// A file without a name, in this directory; `flags` have O_TMPFILE and how it is opened.
pub(crate) fn create_nameless(directory: &[u8], flags: i32) -> io::Result<File> {
    at(directory, OFlag::from_bits_retain(flags), Mode::S_IRUSR | Mode::S_IWUSR)
}

fn at(path: &[u8], flags: OFlag, mode: Mode) -> io::Result<File> {
    check(path)?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(AT_FDCWD, Path::new(OsStr::from_bytes(path)), how)?.into())
}

fn check_procfs(
    path: &[u8],
    flags: i32,
    found: &Metadata,
    is_of_tree: IsOfTree<'_>,
) -> io::Result<()> {
    let owner = process_of(path);
    if owner.is_some_and(is_of_tree) {
        return Ok(());
    }
    let reads = flags & (libc::O_PATH | libc::O_ACCMODE | libc::O_TRUNC) == libc::O_RDONLY;
    let is_public = found.mode() & 0o004 != 0;
    let is_there = path == b"/proc" || path.starts_with(b"/proc/");
    if owner.is_none() && reads && is_public && is_there {
        return Ok(());
    }
    Err(invalid(format!("{} belongs to this host, and not to the tree", shown(path))))
}

/// `Some` for what is below `/proc/PID`; 0 for what would be our own.
fn process_of(path: &[u8]) -> Option<i32> {
    let name = path.strip_prefix(b"/proc/")?.split(|byte| *byte == b'/').next()?;
    if matches!(name, b"self" | b"thread-self") {
        return Some(0);
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn open_as(path: &str, flags: i32) -> io::Result<File> {
        open(path.as_bytes(), libc::S_IFREG, flags, &|pid| pid == own())
    }

    fn own() -> i32 {
        std::process::id().cast_signed()
    }

    #[test]
    fn a_path_with_detours_is_refused() {
        for path in ["", "etc/hosts", "/etc/../etc/hosts", "/./etc", "/etc/..", "/a\0b"] {
            assert!(check(path.as_bytes()).is_err(), "{path:?}");
        }
        for path in ["/", "/etc/hosts", "/..a/b..", "/a b/…"] {
            assert!(check(path.as_bytes()).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn an_administrators_link_is_followed_and_a_magic_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        symlink(home.path(), home.path().join("link")).unwrap();
        symlink("/proc/self/root", home.path().join("trap")).unwrap();
        let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        open_as(&path("link/file"), libc::O_RDONLY).unwrap();
        for magic in [
            path("trap/etc/hostname"),
            format!("/proc/self/root{}", path("file")),
            format!("/proc/{}/cwd/Cargo.toml", own()),
            format!("/proc/{}/root{}", own(), "/etc/hostname"),
        ] {
            let error = open_as(&magic, libc::O_RDONLY).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{magic}: {error}");
        }
    }

    #[test]
    fn a_link_in_the_last_place_is_not_the_file_it_leads_to() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        symlink("file", home.path().join("link")).unwrap();
        let link = home.path().join("link");
        assert!(open_as(link.to_str().unwrap(), libc::O_RDONLY).is_err());
    }

    #[test]
    fn of_procfs_a_tree_gets_its_own_and_what_everybody_may_read() {
        let own = format!("/proc/{}/", own());
        open_as(&format!("{own}status"), libc::O_RDONLY).unwrap();
        open_as(&format!("{own}oom_score_adj"), libc::O_RDWR).unwrap();
        open_as("/proc/meminfo", libc::O_RDONLY).unwrap();
        for (path, flags) in [
            ("/proc/1/status", libc::O_RDONLY),
            ("/proc/1/mem", libc::O_RDWR),
            ("/proc/sys/kernel/core_pattern", libc::O_RDWR),
            ("/proc/self/maps", libc::O_RDONLY),
        ] {
            let error = open_as(path, flags).unwrap_err().to_string();
            assert!(error.contains("belongs to this host"), "{path}: {error}");
        }
    }

    #[test]
    fn a_fifo_and_a_device_are_not_opened_to_find_out_what_they_are() {
        let home = tempfile::tempdir().unwrap();
        let fifo = home.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        // Opened, it would wait for a writer for ever.
        assert!(open_as(fifo.to_str().unwrap(), libc::O_RDONLY).is_err());
        assert!(open_as("/dev/zero", libc::O_RDONLY).is_err());
    }

    #[test]
    fn nothing_is_made_behind_a_magic_link() {
        let path = format!("/proc/self/root{}", std::env::temp_dir().join("trap").display());
        assert!(create(path.as_bytes()).is_err());
        let flags = libc::O_RDWR | libc::O_TMPFILE;
        assert!(create_nameless(b"/proc/self/cwd", flags).is_err());
    }
}
