//! The kinds of kernel object a descriptor can stand for.
//!
//! A kind is one file: what marks it, what cannot be moved, how it is read on the source and made
//! on the destination, and the test of both. To add one, write the file and add its line to the
//! list below.
//!
//! A *descriptor* is a number in a table; it refers to a *description* (offset, status flags;
//! shared by dup and fork) of an *object* (a pipe has two descriptions or more). Capture reads an
//! object through our own duplicates of its descriptors. Creation happens in our own process
//! too, in plain Rust; the generic code then puts the result at its number in every table. Only
//! what must be done by the owner itself (epoll_ctl, arming an absolute timer) goes into `connect`.

use crate::batch::Batch;
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use std::os::fd::{BorrowedFd, OwnedFd};

kinds! {
    eventfd: Eventfd,
}

/// What is known of a description from outside, without touching the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// One descriptor that refers to it (there may be more, in other processes too).
    pub pid: i32,
    pub fd: i32,
    /// Target of `/proc/PID/fd/N`: "pipe:[4711]", "anon_inode:[eventfd]", "/etc/hosts".
    pub link: String,
    /// fstat(2) of the object.
    pub mode: u32,
    pub device: u64,
    pub inode: u64,
    pub rdev: u64,
    pub size: u64,
    pub links: u64,
    /// `pos` and `flags` (without O_CLOEXEC, which is the descriptor's) of fdinfo.
    pub position: u64,
    pub flags: i32,
    /// The whole text of `/proc/PID/fdinfo/N`.
    pub fdinfo: String,
}

impl Seen {
    pub fn object(&self, kind: &'static str) -> Object {
        Object::Fd { pid: self.pid, fd: self.fd, kind }
    }

    /// A field of fdinfo: `field("eventfd-count")`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }
}

/// What makes several descriptions one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// Every description is an object of its own.
    Description,
    /// All descriptions of this inode are one object (both ends of a pipe).
    Inode { device: u64, inode: u64 },
    /// Several inodes are one object (a socket pair: the smaller inode number).
    Named(String),
}

/// A description under capture, with our own duplicate of it.
#[derive(Debug)]
pub struct Open<'a> {
    pub seen: &'a Seen,
    pub local: BorrowedFd<'a>,
}

/// The whole tree, as far as a kind may need it to judge one object.
pub trait Tree {
    fn contains_process(&self, pid: i32) -> bool;
    /// Every description in the tree (before the freeze: as last seen).
    fn descriptions(&self) -> &[Seen];
    /// All (pid, fd) that refer to the description at this index of `descriptions`.
    fn descriptors(&self, description: usize) -> &[(i32, i32)];
}

/// What the source adds of its own about each description: which role it has in its object
/// (kind-defined; for a pipe 0 is the reading end), and its flags and offset.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DescriptionImage {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    pub object: u32,
    #[prost(uint32, tag = "3")]
    pub role: u32,
    /// O_* as in fdinfo, without O_CLOEXEC.
    #[prost(int32, tag = "4")]
    pub flags: i32,
    #[prost(uint64, tag = "5")]
    pub position: u64,
    /// F_GETOWN_EX: type (-1 when there is no owner) and id; F_GETSIG.
    #[prost(int32, tag = "6")]
    pub owner_type: i32,
    #[prost(int32, tag = "7")]
    pub owner: i32,
    #[prost(int32, tag = "8")]
    pub owner_signal: i32,
}

/// Where an object is being made, for the errors and for what only the stage knows.
pub trait Making {
    /// A new description of shared memory `space` (a memfd or shared anonymous memory that the
    /// stage holds), opened with these flags.
    fn open_shared_memory(&self, space: u32, flags: i32) -> Result<OwnedFd, Error>;
    /// The object for an error message.
    fn object(&self, kind: &'static str) -> Object;
}

/// The process and number through which a description is connected.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub pid: i32,
    pub fd: i32,
}

/// What a kind knows how to do. The two sides live in one file so that they change together.
pub trait Kind {
    /// As a person would say it; goes on the wire, so it never changes.
    const NAME: &'static str;
    const VERSION: u32 = 1;

    type Image: prost::Message + Default;

    /// Whether a description of this shape is one of these. At most one kind claims a shape.
    fn claims(seen: &Seen) -> bool;

    fn key(_seen: &Seen) -> ObjectKey {
        ObjectKey::Description
    }

    /// Why this object cannot be moved, found before the freeze from outside.
    fn examine(_of: &[&Seen], _tree: &dyn Tree) -> Vec<Refusal> {
        Vec::new()
    }

    /// Which part of the object this description is; the default is the only part.
    fn role(_open: &Open<'_>) -> Result<u32, Error> {
        Ok(0)
    }

    /// Reads the object through any of its descriptions. Only reads: the source may keep it.
    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Self::Image, Error>;

    /// One descriptor for each description, in their order. Status flags that F_SETFL can set,
    /// and the owner, are applied by the caller.
    fn create(
        image: &Self::Image,
        descriptions: &[DescriptionImage],
        at: &dyn Making,
    ) -> Result<Vec<OwnedFd>, Error>;

    /// Done by the owner, after every table of the tree is complete.
    fn connect(
        _image: &Self::Image,
        _description: &DescriptionImage,
        _owner: Owner,
        _batch: &mut Batch,
    ) -> Result<(), Error> {
        Ok(())
    }
}

/// A kind with its types erased.
#[derive(Debug)]
pub struct KindEntry {
    pub name: &'static str,
    pub version: u32,
    pub claims: fn(&Seen) -> bool,
    pub key: fn(&Seen) -> ObjectKey,
    pub examine: fn(&[&Seen], &dyn Tree) -> Vec<Refusal>,
    pub role: fn(&Open<'_>) -> Result<u32, Error>,
    pub capture: fn(&[Open<'_>], &dyn Tree) -> Result<Vec<u8>, Error>,
    pub create: fn(&[u8], &[DescriptionImage], &dyn Making) -> Result<Vec<OwnedFd>, Error>,
    pub connect: fn(&[u8], &DescriptionImage, Owner, &mut Batch) -> Result<(), Error>,
}

impl KindEntry {
    const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            version: K::VERSION,
            claims: K::claims,
            key: K::key,
            examine: K::examine,
            role: K::role,
            capture: |of, tree| {
                K::capture(of, tree).map(|image| prost::Message::encode_to_vec(&image))
            },
            create: |bytes, descriptions, at| {
                let image = decode::<K>(bytes)?;
                K::create(&image, descriptions, at)
            },
            connect: |bytes, description, owner, batch| {
                let image = decode::<K>(bytes)?;
                K::connect(&image, description, owner, batch)
            },
        }
    }
}

fn decode<K: Kind>(bytes: &[u8]) -> Result<K::Image, Error> {
    prost::Message::decode(bytes).map_err(|e| {
        Error::invalid("read", Object::Image { part: K::NAME.to_owned() }, e.to_string())
    })
}

macro_rules! kinds {
    ($($module:ident: $kind:ident),* $(,)?) => {
        $(mod $module;)*
        pub static ALL: &[KindEntry] = &[$(KindEntry::of::<$module::$kind>()),*];
    };
}
use kinds;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct() {
        let names: BTreeSet<_> = ALL.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
