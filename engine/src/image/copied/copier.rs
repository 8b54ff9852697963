//! Copying files into an image: ahead, while the tree runs, and again what has changed when it stands still.

use super::{Access, Copied, CopiedDirectory, CopiedFile, Named, SPACES_FROM, Times};
use crate::error::{Error, Object, OnObject as _};
use crate::image::PAGE;
use crate::memory::{DATA_BYTES_MAX, PAGE_BYTES, PageSink, Run};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that has just changed may change again without its time telling: the kernel's clock ticks every
/// ten milliseconds at worst, and a server of files has a clock of its own.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Copier {
    /// Of what is copied in one pass.
    bytes_max: u64,
    known: BTreeMap<PathBuf, Known>,
    spaces: u32,
}

/// A file, as it was when it was copied.
#[derive(Debug)]
struct Known {
    file: CopiedFile,
    /// `None` when it has to be copied again in any case.
    stamp: Option<Stamp>,
}

/// What tells that a file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Copier {
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, known: BTreeMap::new(), spaces: 0 }
    }

    /// The number that the content of each file will have.
    pub fn number(&mut self, named: &Named) -> Vec<(PathBuf, u32)> {
        named.keys().map(|path| (path.clone(), self.space_of(path))).collect()
    }

    fn space_of(&mut self, path: &Path) -> u32 {
        if let Some(known) = self.known.get(path) {
            return known.file.space;
        }
        let space = SPACES_FROM + self.spaces;
        self.spaces += 1;
        let file = CopiedFile {
            path: path.as_os_str().as_bytes().to_vec(),
            space,
            ..CopiedFile::default()
        };
        self.known.insert(path.to_owned(), Known { file, stamp: None });
        space
    }

    /// While the tree runs: all that it does not write to itself.
    pub fn copy_ahead(&mut self, named: &Named, sink: &mut dyn PageSink) -> Result<(), Error> {
        let unwritten = named.iter().filter(|(_, writes)| !**writes);
        let mut left = self.bytes_max;
        unwritten.into_iter().try_for_each(|(path, _)| match self.copy(path, &mut left, sink) {
            // Of what comes and goes, what is there at last counts.
            Err(error) if error.is_gone() => Ok(()),
            copied => copied,
        })
    }

    /// While it stands still: what was not copied yet, and what has changed since.
    pub fn copy_the_rest(
        mut self,
        named: &Named,
        sink: &mut dyn PageSink,
    ) -> Result<Copied, Error> {
        let mut left = self.bytes_max;
        named.keys().try_for_each(|path| self.copy(path, &mut left, sink))?;
        let wanted = self.known.into_iter().filter(|(path, _)| named.contains_key(path));
        let files: Vec<CopiedFile> = wanted.map(|(_, known)| known.file).collect();
        let directories = directories(&files)?;
        Ok(Copied { files, directories })
    }

    fn copy(&mut self, path: &Path, left: &mut u64, sink: &mut dyn PageSink) -> Result<(), Error> {
        let object = || Object::File { path: path.display().to_string() };
        let file = open(path).on("open", object)?;
        let found = file.metadata().on("look at", object)?;
        let (space, stamp) = (self.space_of(path), Stamp::of(&found));
        let known = self.known.get_mut(path).expect("it has a space");
        if known.stamp == Some(stamp) {
            return Ok(());
        }
        let before = Run::covering(0, known.file.size).pages;
        let dropped = if before > 0 { sink.dropped(space, 0, before) } else { Ok(()) };
        dropped
            .and_then(|()| Reading { file: &file, space, left }.run(found.size(), sink))
            .on("copy", object)?;
        known.stamp = Some(stamp).filter(|stamp| stamp.is_settled());
        known.file.size = found.size();
        known.file.access = Access::of(&found);
        known.file.times = Times::of(&found);
        Ok(())
    }
}

/// Read without a trace in its times.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOATIME;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file any more")),
    }
}

struct Reading<'a> {
    file: &'a File,
    space: u32,
    left: &'a mut u64,
}

impl Reading<'_> {
    fn run(&mut self, size: u64, sink: &mut dyn PageSink) -> io::Result<()> {
        let mut buffer = vec![0; DATA_BYTES_MAX];
        let mut at = 0;
        while let Some((from, until)) = next_data(self.file, at, size)? {
            // What is filled in begins and ends with a page.
            let mut offset = (from / PAGE_BYTES * PAGE_BYTES).max(at);
            while offset < until {
                let room = until.next_multiple_of(PAGE_BYTES) - offset;
                let room = usize::try_from(room).map_or(DATA_BYTES_MAX, |n| n.min(DATA_BYTES_MAX));
                let filled = fill(self.file, &mut buffer[..room], offset)?;
                if filled == 0 {
                    break;
                }
                let whole = filled.next_multiple_of(PAGE);
                buffer[filled..whole].fill(0);
                self.account(filled)?;
                sink.data(self.space, offset, &buffer[..whole])?;
                offset += whole as u64;
            }
            at = until.next_multiple_of(PAGE_BYTES).max(offset);
        }
        Ok(())
    }

    fn account(&mut self, bytes: usize) -> io::Result<()> {
        let left = self.left.checked_sub(bytes as u64);
        *self.left = left.ok_or_else(|| {
            let why = "the files of the tree are more than are admitted (`--copy-files-max MIB`)";
            io::Error::new(io::ErrorKind::FileTooLarge, why)
        })?;
        Ok(())
    }
}

/// As much as there is, up to the buffer's length.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The next bytes that are not a hole: lseek(2). Where a file system knows of no holes, it is all of them.
pub(super) fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |at: u64, whence| {
        let at = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidData)?;
        match lseek(file, at, whence) {
            Ok(found) => Ok(Some(found.unsigned_abs())),
            Err(Errno::ENXIO) => Ok(None),
            Err(error) => Err(io::Error::from(error)),
        }
    };
    if at >= size {
        return Ok(None);
    }
    let Some(from) = seek(at, Whence::SeekData)?.filter(|from| *from < size) else {
        return Ok(None);
    };
    let until = seek(from, Whence::SeekHole)?.unwrap_or(size).min(size);
    Ok(Some((from, until)))
}

/// Of all that is above them.
fn directories(files: &[CopiedFile]) -> Result<Vec<CopiedDirectory>, Error> {
    let above = files.iter().flat_map(|file| file.path().ancestors().skip(1));
    let above: BTreeSet<&Path> = above.filter(|path| path.parent().is_some()).collect();
    let of = |path: &Path| {
        let object = || Object::File { path: path.display().to_string() };
        let found = fs::metadata(path).on("look at", object)?;
        let path = path.as_os_str().as_bytes().to_vec();
        Ok(CopiedDirectory { path, access: Access::of(&found) })
    };
    // A parent's path is the beginning of its child's, and comes before it.
    above.into_iter().map(of).collect()
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            place: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = self.modified.0.max(self.changed.0);
        let until = now.saturating_sub(SETTLED).as_secs();
        u64::try_from(last).is_ok_and(|last| last < until)
    }
}

impl Access {
    fn of(found: &Metadata) -> Self {
        Self { permissions: found.mode() & 0o7777, uid: found.uid(), gid: found.gid() }
    }
}

impl Times {
    fn of(found: &Metadata) -> Self {
        Self {
            modified_s: found.mtime(),
            modified_ns: found.mtime_nsec(),
            accessed_s: found.atime(),
            accessed_ns: found.atime_nsec(),
        }
    }
}
