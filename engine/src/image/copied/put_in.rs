//! Files of an image that are missing here are put in; none that is here is touched.
//!
//! A file gets its name when it is whole, and only if nothing else has that name by then. Whatever comes
//! in between takes them all away again: they are there when the tree runs, or not at all.

use super::compare::{Here, look, within};
use super::{Access, Copied, CopiedDirectory, CopiedFile, Times};
use crate::error::{Error, Object, OnObject as _};
use crate::image::StoredImage;
use crate::image::store::Store;
use crate::memory::PageSink;
use crate::paths;
use crate::refusal::Refusal;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

/// What was put in. Dropping it takes that away again, unless the tree runs: [`PutIn::keep`].
#[derive(Debug, Default)]
pub struct PutIn {
    /// What was made in which directory, under which name, in the order in which it was.
    made: Vec<Made>,
    files: usize,
}

#[derive(Debug)]
struct Made {
    directory: OwnedFd,
    name: Vec<u8>,
    /// Device and inode of a file; `None` for a directory, which goes when it is empty.
    file: Option<(u64, u64)>,
}

/// Puts in what is missing. What is here and differs from the image's is refused, each by name.
pub fn put_in(image: &StoredImage) -> Result<(PutIn, Vec<Refusal>), Error> {
    let mut put_in = PutIn::default();
    let Some(copied) = &image.tree().copied else { return Ok((put_in, Vec::new())) };
    let (mut missing, mut refusals) = (Vec::new(), Vec::new());
    for file in &copied.files {
        match look(file, image.store())? {
            Here::Missing => missing.push(file),
            Here::AsItIs => {}
            Here::Differs(why) => refusals.push(refusal(file, &why)),
        }
    }
    // All of it can be read before any of it is made.
    missing.iter().try_for_each(|file| image.store().read_all(file.space, &mut Nowhere))?;
    put_in.make_directories_above(&missing, copied)?;
    missing.iter().try_for_each(|file| put_in.make(file, image.store()))?;
    Ok((put_in, refusals))
}

fn refusal(file: &CopiedFile, why: &str) -> Refusal {
    Refusal {
        object: file.object(),
        reason: why.to_owned(),
        advice: "Move it away, or restore without `--copy-files` if it is the right one."
            .to_owned(),
    }
}

impl PutIn {
    /// How many files.
    pub fn files(&self) -> usize {
        self.files
    }

    /// A tree runs that needs them.
    pub fn keep(mut self) {
        self.made.clear();
    }

    fn make_directories_above(
        &mut self,
        missing: &[&CopiedFile],
        copied: &Copied,
    ) -> Result<(), Error> {
        let above = missing.iter().flat_map(|file| file.path().ancestors().skip(1));
        let above: BTreeSet<&[u8]> = above.map(|path| path.as_os_str().as_bytes()).collect();
        for directory in copied.directories.iter().filter(|one| above.contains(&one.path[..])) {
            let object =
                || Object::File { path: String::from_utf8_lossy(&directory.path).into_owned() };
            match paths::directory(&directory.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_directory(directory).on("make", object)?;
                }
                other => drop(other.on("open", object)?),
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, wanted: &CopiedDirectory) -> io::Result<()> {
        let (above, name) = place(&wanted.path)?;
        mkdirat(&above, name, Mode::S_IRWXU)?;
        let above: OwnedFd = above.into();
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = openat(&above, name, flags, Mode::empty());
        self.made.push(Made { directory: above, name: name.as_bytes().to_vec(), file: None });
        wanted.access.set(&File::from(made?))
    }

    fn make(&mut self, wanted: &CopiedFile, store: &Store) -> Result<(), Error> {
        let object = || wanted.object();
        let (directory, name) = place(&wanted.path).on("find the directory of", object)?;
        let (file, has_name) = new_file(&directory, name).on("make", object)?;
        let found = file.metadata().on("look at", object)?;
        if has_name {
            self.note(&directory, name, &found).on("make", object)?;
        }
        file.set_len(wanted.size).on("make", object)?;
        store.read_all(wanted.space, &mut Filling { file: &file, size: wanted.size })?;
        wanted.access.set(&file).and_then(|()| wanted.times.set(&file)).on("make", object)?;
        if !has_name {
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            let linked = linkat(AT_FDCWD, &*own, &directory, name, AtFlags::AT_SYMLINK_FOLLOW);
            linked.on("name", object)?;
            self.note(&directory, name, &found).on("name", object)?;
        }
        self.files += 1;
        Ok(())
    }

    fn note(&mut self, directory: &File, name: &OsStr, found: &Metadata) -> io::Result<()> {
        let (directory, name) = (directory.try_clone()?.into(), name.as_bytes().to_vec());
        let file = Some((found.dev(), found.ino()));
        self.made.push(Made { directory, name, file });
        Ok(())
    }
}

impl Drop for PutIn {
    fn drop(&mut self) {
        for made in self.made.drain(..).rev() {
            if let Err(error) = made.take_away() {
                let name = String::from_utf8_lossy(&made.name);
                tracing::warn!(%name, %error, "what was put in could not be taken away again");
            }
        }
    }
}

impl Made {
    /// Not if somebody else has put another file there since.
    fn take_away(&self) -> io::Result<()> {
        let name = OsStr::from_bytes(&self.name);
        let Some(ours) = self.file else {
            return match unlinkat(&self.directory, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
                removed => Ok(removed?),
            };
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = File::from(openat(&self.directory, name, flags, Mode::empty())?).metadata()?;
        match (found.dev(), found.ino()) == ours {
            true => Ok(unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir)?),
            false => Ok(()),
        }
    }
}

/// The directory that a path leads into, and the last name of it.
fn place(path: &[u8]) -> io::Result<(File, &OsStr)> {
    let path = Path::new(OsStr::from_bytes(path));
    let (above, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((paths::directory(above.as_os_str().as_bytes())?, name))
}

/// Without a name, where the file system has such files; else whether it has its own already.
fn new_file(directory: &File, name: &OsStr) -> io::Result<(File, bool)> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let nameless = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    match openat(directory, ".", nameless, mode) {
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT) => {
            let named = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
            Ok((openat(directory, name, named | OFlag::O_NOFOLLOW, mode)?.into(), true))
        }
        made => Ok((made?.into(), false)),
    }
}

impl Access {
    /// The owner first: to change it takes set-user-ID away.
    fn set(self, file: &File) -> io::Result<()> {
        fchown(file.as_fd(), Some(self.uid), Some(self.gid))?;
        file.set_permissions(Permissions::from_mode(self.permissions & 0o7777))
    }
}

impl Times {
    fn set(self, file: &File) -> io::Result<()> {
        let accessed = TimeSpec::new(self.accessed_s, self.accessed_ns);
        Ok(futimens(file, &accessed, &TimeSpec::new(self.modified_s, self.modified_ns))?)
    }
}

/// Writes what is not a hole.
struct Filling<'a> {
    file: &'a File,
    size: u64,
}

impl PageSink for Filling<'_> {
    fn data(&mut self, _: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(within(bytes, address, self.size), address)
    }

    fn zero(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn dropped(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Every block is held against its checksum.
struct Nowhere;

impl PageSink for Nowhere {
    fn data(&mut self, _: u32, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn zero(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn dropped(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
