//! A file that no path leads to any more: its content travels with the tree.

use super::file::options;
use super::{DescriptionImage, Findings, Open, Seen};
use crate::error::{Error, Object, OnObject as _};
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
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

    /// Made under a name that exists for an instant, so that it is nameless again as it was.
    pub(super) fn create(
        &self,
        path: &str,
        descriptions: &[DescriptionImage],
    ) -> io::Result<Vec<OwnedFd>> {
        let mut file = nameless(Path::new(path))?;
        file.write_all(&self.content)?;
        fchown(file.as_fd(), Some(self.uid), Some(self.gid))?;
        file.set_permissions(Permissions::from_mode(self.permissions & 0o7777))?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        descriptions
            .iter()
            .map(|one| {
                let flags = one.flags & !libc::O_NOFOLLOW;
                Ok(options(&DescriptionImage { flags, ..*one }).open(&own)?.into())
            })
            .collect()
    }
}

fn nameless(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    match options.clone().create_new(true).open(path) {
        Ok(file) => fs::remove_file(path).map(|()| file),
        // Another file has the name by now.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            options.custom_flags(libc::O_TMPFILE).open(directory)
        }
        Err(error) => Err(error),
    }
}
