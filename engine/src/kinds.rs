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
//! what must be done by the owner itself (epoll_ctl, a lock, an absolute timer) goes into `connect`.

mod address;
mod content;
mod locks;
mod options;
mod queue;
mod removed;
mod rules;
mod seen;
mod unclaimed;

use crate::batch::Batch;
use crate::error::{Error, Object};
use crate::refusal::Refusal;
pub use rules::{Findings, Note, OutsidePipe, Rules, Tcp, Terminal};
pub use seen::{Seen, SocketSeen, UnixSeen};
use std::os::fd::{BorrowedFd, OwnedFd};
pub(crate) use unclaimed::refuse_unclaimed;

kinds! {
    device: Device,
    epoll: Epoll,
    eventfd: Eventfd,
    fifo: Fifo,
    file: File,
    inotify: Inotify,
    memfd: Memfd,
    pidfd: Pidfd,
    pipe: Pipe,
    signalfd: Signalfd,
    tcp: Connection,
    tcp_idle: Idle,
    tcp_listen: Listener,
    timerfd: Timerfd,
    tty: Tty,
    udp: Udp,
    unix_idle: Unnamed,
    unix_pair: Pair,
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
    /// Its place in the tree's descriptions.
    pub index: usize,
}

/// The whole tree, as far as a kind may need it to judge one object.
pub trait Tree {
    fn rules(&self) -> &Rules;
    fn contains_process(&self, pid: i32) -> bool;
    /// Every description in the tree (before the freeze: as last seen).
    fn descriptions(&self) -> &[Seen];
    /// All (pid, fd) that refer to the description at this index of `descriptions`.
    fn descriptors(&self, description: usize) -> &[(i32, i32)];
    /// The description behind a descriptor, as its index in `descriptions`.
    fn description_at(&self, pid: i32, fd: i32) -> Option<usize>;
    /// Whether the descriptor is closed on exec; false when there is none.
    fn is_close_on_exec(&self, pid: i32, fd: i32) -> bool;
    /// The `lock` lines in the fdinfo of one descriptor: a POSIX lock belongs to a process, so
    /// two descriptors of one description can have different ones.
    fn lock_lines(&self, pid: i32, fd: i32) -> &[String];
    /// How far the clocks of a process are ahead of ours.
    fn clock_shifts(&self, pid: i32) -> ClockShifts;
    /// The shared memory that travels by itself, if this inode is one.
    fn space(&self, device: u64, inode: u64) -> Option<u32>;
}

/// How far the clocks of a process are ahead of our own, when its time namespace is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockShifts {
    pub monotonic_ns: i64,
    pub boottime_ns: i64,
}

/// What the source adds of its own about each description: its access, flags and offset.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct DescriptionImage {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    pub object: u32,
    /// Which part of the object it is, as the kind counts them (for a socket pair the end).
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

impl DescriptionImage {
    fn access(&self) -> i32 {
        self.flags & libc::O_ACCMODE
    }
}

/// What only the stage has.
pub trait Making: std::fmt::Debug {
    /// A new description of shared memory `space` (a memfd or shared anonymous memory that the
    /// stage holds), opened with these flags.
    fn open_shared_memory(&self, space: u32, flags: i32) -> Result<OwnedFd, Error>;
    /// F_SEAL_* to be put on shared memory `space` once its content is complete: a seal against
    /// writing would keep us from filling it.
    fn seal_shared_memory(&self, space: u32, seals: i32) -> Result<(), Error>;
}

/// Where an object is being made: one descriptor that it is for, and what only the stage has.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub owner: Owner,
    pub stage: &'a dyn Making,
}

impl Place<'_> {
    pub fn object(&self, kind: &'static str) -> Object {
        self.owner.object(kind)
    }
}

/// The process and number through which a description is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub pid: i32,
    pub fd: i32,
}

impl Owner {
    pub fn object(&self, kind: &'static str) -> Object {
        Object::Fd { pid: self.pid, fd: self.fd, kind }
    }
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

    /// Why this object cannot be moved, and what will be different, found before the freeze.
    fn examine(_of: &[&Seen], _tree: &dyn Tree, _findings: &mut Findings) {}

    /// Which part of the object this description is; the default is the only part.
    fn role(_open: &Open<'_>) -> Result<u32, Error> {
        Ok(0)
    }

    /// Reads the object through any of its descriptions. Only reads: the source may keep it.
    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Self::Image, Error>;

    /// The part of the image that says what the destination must have, without the content; read
    /// while the tree runs. `None` when any host will do.
    fn outline(_of: &[Open<'_>], _tree: &dyn Tree) -> Result<Option<Self::Image>, Error> {
        Ok(None)
    }

    /// What this host lacks for the object that `outline` described.
    fn check(
        _outline: &Self::Image,
        _descriptions: &[DescriptionImage],
        _owner: Owner,
    ) -> Vec<Refusal> {
        Vec::new()
    }

    /// One descriptor for each description, in their order; there is at least one. Status flags
    /// that F_SETFL can set, the offset of a file, and the owner are applied by the caller.
    fn create(
        image: &Self::Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error>;

    /// Done by the owner, after every table of the tree is complete. Called once for each process
    /// that has the description, with its lowest number there.
    fn connect(
        _image: &Self::Image,
        _description: &DescriptionImage,
        _owner: Owner,
        _batch: &mut Batch,
    ) -> Result<(), Error> {
        Ok(())
    }
}

type Examine = fn(&[&Seen], &dyn Tree, &mut Findings);
type Capture = fn(&[Open<'_>], &dyn Tree) -> Result<Vec<u8>, Error>;
type Outline = fn(&[Open<'_>], &dyn Tree) -> Result<Option<Vec<u8>>, Error>;
type Check = fn(&[u8], &[DescriptionImage], Owner) -> Result<Vec<Refusal>, Error>;
type Create = fn(&[u8], &[DescriptionImage], &Place<'_>) -> Result<Vec<OwnedFd>, Error>;
type Connect = fn(&[u8], &DescriptionImage, Owner, &mut Batch) -> Result<(), Error>;

/// A kind with its types erased.
#[derive(Debug)]
pub struct KindEntry {
    pub name: &'static str,
    pub version: u32,
    pub claims: fn(&Seen) -> bool,
    pub key: fn(&Seen) -> ObjectKey,
    pub examine: Examine,
    pub role: fn(&Open<'_>) -> Result<u32, Error>,
    pub capture: Capture,
    pub outline: Outline,
    pub check: Check,
    pub create: Create,
    pub connect: Connect,
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
            capture: |of, tree| Ok(encode(&K::capture(of, tree)?)),
            outline: |of, tree| Ok(K::outline(of, tree)?.as_ref().map(encode)),
            check: |bytes, descriptions, owner| {
                Ok(K::check(&decode::<K>(bytes)?, descriptions, owner))
            },
            create: |bytes, descriptions, at| K::create(&decode::<K>(bytes)?, descriptions, at),
            connect: |bytes, description, owner, batch| {
                K::connect(&decode::<K>(bytes)?, description, owner, batch)
            },
        }
    }
}

/// The kind that claims a description, if there is one.
pub(crate) fn kind_of(seen: &Seen) -> Option<&'static KindEntry> {
    ALL.iter().find(|kind| (kind.claims)(seen))
}

/// The kind of that name, in a version that we can read.
pub(crate) fn kind_named(name: &str, version: u32) -> Option<&'static KindEntry> {
    ALL.iter().find(|kind| kind.name == name && (1..=kind.version).contains(&version))
}

fn encode(image: &impl prost::Message) -> Vec<u8> {
    image.encode_to_vec()
}

fn decode<K: Kind>(bytes: &[u8]) -> Result<K::Image, Error> {
    prost::Message::decode(bytes).map_err(|e| {
        Error::invalid("read", Object::Image { part: K::NAME.to_owned() }, e.to_string())
    })
}

/// The one description of an object that cannot have two.
fn sole<'a>(
    kind: &'static str,
    descriptions: &'a [DescriptionImage],
) -> Result<&'a DescriptionImage, Error> {
    match descriptions {
        [one] => Ok(one),
        _ => Err(nonsense(kind, "has several descriptions, which is impossible")),
    }
}

/// An image that no capture can have written.
fn nonsense(kind: &'static str, why: &str) -> Error {
    Error::invalid("use", Object::Image { part: kind.to_owned() }, why)
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
