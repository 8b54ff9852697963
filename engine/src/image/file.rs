//! A file of an image: as it is, or sealed with age. Nobody else knows which of the two it is.

use super::keys::{Identities, Recipients, damaged};
use crate::error::{Error, Object, OnObject as _};
use age::stream::{StreamReader, StreamWriter};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// One that is being written, from its beginning to its end.
pub(super) enum Output {
    Plain(File),
    Sealed(Box<StreamWriter<File>>),
}

impl Output {
    /// A new one, which only its owner may read.
    pub(super) fn create(path: &Path, recipients: &Recipients) -> Result<Self, Error> {
        let object = || Object::File { path: path.display().to_string() };
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let file = file.on("make", object)?;
        match recipients.is_empty() {
            true => Ok(Self::Plain(file)),
            false => recipients.seal(file).map(Box::new).map(Self::Sealed).on("encrypt", object),
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Sealed(stream) => stream.write_all(bytes),
        }
    }

    /// Bytes that nobody will read. Of one that is sealed every byte stays: whoever opens it with
    /// age needs them all.
    pub(super) fn give_back(&self, offset: u64, bytes: u32) {
        let (Self::Plain(file), Ok(offset)) = (self, i64::try_from(offset)) else { return };
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // A file system without holes is no reason to fail: the space is only not given back.
        let _ = fallocate(file, flags, offset, i64::from(bytes));
    }

    /// Waits until the disk has it.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.sync_all(),
            Self::Sealed(stream) => stream.finish()?.sync_all(),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Output(plain)",
            Self::Sealed(_) => "Output(sealed)",
        })
    }
}

/// One that is there. It may be read from several threads at once.
#[derive(Debug)]
pub(super) struct Input {
    path: PathBuf,
    bytes: u64,
    content: Content,
}

enum Content {
    Plain(File),
    /// Where it is read next is part of it.
    Sealed(Mutex<Box<StreamReader<File>>>),
}

impl Input {
    pub(super) fn plain(path: PathBuf) -> Result<Self, Error> {
        let object = || Object::File { path: path.display().to_string() };
        let file = open(&path)?;
        let bytes = file.metadata().on("look at", object)?.len();
        Ok(Self { path, bytes, content: Content::Plain(file) })
    }

    pub(super) fn sealed(path: PathBuf, identities: &Identities) -> Result<Self, Error> {
        let object = || Object::File { path: path.display().to_string() };
        let file = open(&path)?;
        let mut stream = identities.open(file).on("open", object)?;
        // Its end is authentic: nothing was cut off.
        let bytes = stream.seek(SeekFrom::End(0)).map_err(damaged).on("read", object)?;
        let content = Content::Sealed(Mutex::new(Box::new(stream)));
        Ok(Self { path, bytes, content })
    }

    /// How many there are to read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn object(&self) -> Object {
        Object::File { path: self.path.display().to_string() }
    }

    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(Error::invalid("read", self.object(), "it is cut off"));
        }
        match &self.content {
            Content::Plain(file) => file.read_exact_at(buffer, offset),
            Content::Sealed(stream) => {
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                let sought = stream.seek(SeekFrom::Start(offset));
                sought.and_then(|_| stream.read_exact(buffer)).map_err(damaged)
            }
        }
        .on("read", || self.object())
    }

    /// All of it, if it is no longer than that.
    pub(super) fn read(&self, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(self.bytes).ok().filter(|_| self.bytes <= bytes_max);
        let too_long = || Error::invalid("read", self.object(), "it is too long");
        let mut bytes = vec![0; length.ok_or_else(too_long)?];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "plain",
            Self::Sealed(_) => "sealed",
        })
    }
}
/// Nothing but a regular file: whoever opens a FIFO waits for a writer.
fn open(path: &Path) -> Result<File, Error> {
    let object = || Object::File { path: path.display().to_string() };
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).on("open", object)?;
    match file.metadata().on("look at", object)?.is_file() {
        true => Ok(file),
        false => Err(Error::invalid("read", object(), "it is no regular file")),
    }
}
