//! A file that no path leads to any more: its content travels with the tree.

use super::file::options;
use super::{DescriptionImage, Findings, Open, Seen};
use crate::error::{Error, Object, OnObject as _};
use crate::paths;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

/// More belongs on shared storage: the content is part of what the freeze carries.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Removed {
    #[prost(bytes = "vec", tag = "1")]
    content: Vec<u8>,
    /// Permission bits of the mode.
    #[prost(uint32, tag = "2")]
    permissions: u32,
    #[prost(uint32, tag = "3")]
    uid: u32,
    #[prost(uint32, tag = "4")]
    gid: u32,
}

pub(super) fn examine(seen: &Seen, object: Object, findings: &mut Findings) {
    let link = &seen.link;
    if seen.shape() != libc::S_IFREG {
        findings.refuse(object, format!("({link}) was removed"), "Let the program leave it.");
    } else if !is_beside_its_directory(seen) {
        findings.refuse(object, format!("({link}) is in no file system"), "Let it be closed.");
    } else if seen.size > BYTES_MAX {
        let reason = format!("({link}) was removed and has {} bytes", seen.size);
        findings.refuse(object, reason, "Only 64 MiB of a removed file can be carried.");
    }
}

/// Secret memory and buffers of drivers also look like removed files.
fn is_beside_its_directory(seen: &Seen) -> bool {
    let directory = Path::new(&seen.link).parent().map(fs::metadata);
    directory.is_some_and(|found| found.is_ok_and(|found| found.dev() == seen.device))
}

impl Removed {
    pub(super) fn read(open: &Open<'_>) -> Result<Self, Error> {
        let object = || open.seen.object("file");
        if open.seen.size > BYTES_MAX {
            return Err(Error::invalid("carry", object(), "removed, and larger than 64 MiB"));
        }
        // Ours may only be a writing descriptor.
        let own = format!("/proc/self/fd/{}", open.local.as_raw_fd());
        let read = || -> io::Result<Self> {
            let found = fs::metadata(&own)?;
            let (permissions, uid, gid) = (found.mode() & 0o7777, found.uid(), found.gid());
            Ok(Self { content: fs::read(&own)?, permissions, uid, gid })
        };
        read().on("read", object)
    }

    /// What only the destination can say: the file is made again in the directory where it was.
    pub(super) fn lacks_directory(path: &str) -> Option<String> {
        let directory = directory_of(Path::new(path));
        let is_there = fs::metadata(directory).is_ok_and(|found| found.is_dir());
        let shown = directory.display();
        (!is_there).then(|| format!("was removed, and the destination has no directory {shown}"))
    }

    /// Nameless again, as it was.
    pub(super) fn create(
        &self,
        path: &str,
        descriptions: &[DescriptionImage],
    ) -> io::Result<Vec<OwnedFd>> {
        let path = Path::new(path);
        let born = descriptions.iter().position(|one| is_born_nameless(one.flags));
        let born = born.and_then(|at| Some((at, born_nameless(path, &descriptions[at])?)));
        let file = match &born {
            Some((_, file)) => file.try_clone()?,
            None => nameless(path)?,
        };
        self.fill(&file)?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let reopen = |(at, one): (usize, &DescriptionImage)| match &born {
            Some((first, file)) if *first == at => file.try_clone().map(OwnedFd::from),
            _ => Ok(options(&DescriptionImage { flags: reopening(one.flags), ..*one })
                .open(&own)?
                .into()),
        };
        descriptions.iter().enumerate().map(reopen).collect()
    }

    /// Without moving the offset, which is that of a description.
    fn fill(&self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.content, 0)?;
        fchown(file.as_fd(), Some(self.uid), Some(self.gid))?;
        file.set_permissions(Permissions::from_mode(self.permissions & 0o7777))
    }
}

/// open(2) with O_TMPFILE, whose bits stay in the flags of the description. They include
/// O_DIRECTORY, because what was opened by name is a directory.
fn is_born_nameless(flags: i32) -> bool {
    flags & libc::O_TMPFILE == libc::O_TMPFILE
}

/// How a file that is there is opened once more.
fn reopening(flags: i32) -> i32 {
    flags & !libc::O_NOFOLLOW & !libc::O_TMPFILE
}

/// The very description that O_TMPFILE made: through it the program may yet give the file a name
/// (linkat(2)). `None` where the file system has no such files, or this is no such image.
fn born_nameless(path: &Path, description: &DescriptionImage) -> Option<File> {
    let synchronous = description.flags & libc::O_SYNC;
    let flags = libc::O_TMPFILE | description.flags & libc::O_ACCMODE | synchronous;
    paths::create_nameless(directory_of(path).as_os_str().as_bytes(), flags).ok()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Made under a name that exists for an instant.
fn nameless(path: &Path) -> io::Result<File> {
    match paths::create(path.as_os_str().as_bytes()) {
        Ok(file) => fs::remove_file(path).map(|()| file),
        // Another file has the name by now.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let flags = libc::O_TMPFILE | libc::O_RDWR;
            paths::create_nameless(directory_of(path).as_os_str().as_bytes(), flags)
        }
        Err(error) => Err(error),
    }
}
