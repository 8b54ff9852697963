//! Files that go with an image: what the tree had open or mapped, with owner, mode and times.
//!
//! The content of each is a space of the image, by offset, as memory is by address: so it is compressed,
//! checked, encrypted and held against a parent as memory is. What is in no extent is a hole.
//!
//! [`Copier`] copies them while a tree is dumped, [`put_in`] puts those that are missing on a host where
//! it is restored.

mod compare;
mod copier;
mod named;
mod put_in;

pub use copier::Copier;
pub use named::{Named, named, too_much};
pub use put_in::{PutIn, put_in};

use super::store::Store;
use crate::error::{Error, Object};
use crate::memory::PAGE_BYTES;
use crate::paths;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Their spaces have these numbers; those of memory are counted from 1.
const SPACES_FROM: u32 = 1 << 31;
/// No tree has as many open or mapped.
const FILES_MAX: usize = 1 << 16;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Copied {
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<CopiedFile>,
    /// Every directory above one of them but `/`, parents before their children.
    #[prost(message, repeated, tag = "2")]
    pub directories: Vec<CopiedDirectory>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CopiedFile {
    /// As the kernel showed it.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// The space its content is in.
    #[prost(uint32, tag = "2")]
    pub space: u32,
    /// Bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    #[prost(message, required, tag = "4")]
    pub access: Access,
    #[prost(message, required, tag = "5")]
    pub times: Times,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CopiedDirectory {
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    #[prost(message, required, tag = "2")]
    pub access: Access,
}

/// Who may do what with it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Access {
    /// Permission bits of the mode.
    #[prost(uint32, tag = "1")]
    pub permissions: u32,
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    #[prost(uint32, tag = "3")]
    pub gid: u32,
}

/// Seconds since 1970, and nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Times {
    #[prost(int64, tag = "1")]
    pub modified_s: i64,
    #[prost(int64, tag = "2")]
    pub modified_ns: i64,
    #[prost(int64, tag = "3")]
    pub accessed_s: i64,
    #[prost(int64, tag = "4")]
    pub accessed_ns: i64,
}

/// Whether a space has the content of a file.
pub(crate) fn is_of_file(space: u32) -> bool {
    space >= SPACES_FROM
}

impl CopiedFile {
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// For who reads an error.
    fn object(&self) -> Object {
        Object::File { path: self.path().display().to_string() }
    }
}

impl Copied {
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    /// An image may mean harm: nothing that could later lead anywhere else.
    pub(in crate::image) fn check(&self, store: &Store) -> Result<(), Error> {
        if self.files.len() > FILES_MAX || self.directories.len() > FILES_MAX {
            return Err(wrong("the list of files", "is too long"));
        }
        let (mut spaces, mut names) = (BTreeSet::new(), BTreeSet::new());
        for file in &self.files {
            let name = file.path().display().to_string();
            check_path(&file.path)?;
            if !spaces.insert(file.space) || !names.insert(&file.path) || !is_of_file(file.space) {
                return Err(wrong(&name, "is there twice, or has the space of something else"));
            }
            let end = store.known(file.space).runs().last().map_or(0, |run| run.end());
            if file.size > i64::MAX.unsigned_abs() || end > file.size.next_multiple_of(PAGE_BYTES) {
                return Err(wrong(&name, "has content behind its end"));
            }
        }
        self.directories.iter().try_for_each(|directory| check_path(&directory.path))
    }
}

/// Nothing is made in the root itself without a name.
fn check_path(path: &[u8]) -> Result<(), Error> {
    let name = String::from_utf8_lossy(path);
    if path.len() < 2 || path.ends_with(b"/") {
        return Err(wrong(&name, "is no path of a file"));
    }
    paths::check(path).map_err(|error| Error::new("use", object(&name), error))
}

fn wrong(name: &str, why: &str) -> Error {
    Error::invalid("use", object(name), why)
}

fn object(name: &str) -> Object {
    Object::Image { part: format!("file {name}") }
}
