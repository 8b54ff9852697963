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
mod datagrams;
mod entry;
mod growth;
mod kind;
mod locks;
mod maker;
mod multicast;
mod options;
mod outside;
mod place;
pub(crate) mod queue;
mod removed;
mod rules;
mod seen;
mod tree;
mod unclaimed;
mod unix_name;

use crate::error::{Error, Object};
pub use entry::KindEntry;
pub use kind::Kind;
pub use maker::{Maker, SocketCall};
pub use place::{Ground, Making, Others, Owner, Place};
pub use queue::Queued;
pub use rules::{Findings, Note, OutsidePipe, OutsideUnix, Rules, Tcp, Terminal};
pub use seen::{Seen, SocketSeen, UnixSeen};
pub(crate) use tcp::orphans;
pub use tree::{ClockShifts, ObjectKey, Open, Tree, Wait};
pub(crate) use unclaimed::refuse_unclaimed;

kinds! {
    device: Device,
    epoll: Epoll,
    eventfd: Eventfd,
    fifo: Fifo,
    file: File,
    icmp: Ping,
    inotify: Inotify,
    memfd: Memfd,
    netlink: Netlink,
    pidfd: Pidfd,
    pipe: Pipe,
    raw: Raw,
    signalfd: Signalfd,
    tcp: Connection,
    tcp_idle: Idle,
    tcp_listen: Listener,
    timerfd: Timerfd,
    tty: Tty,
    udp: Udp,
    unix_datagram: Datagram,
    unix_idle: Unconnected,
    unix_listen: Listener,
    unix_pair: Pair,
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
    /// O_RDONLY, O_WRONLY or O_RDWR.
    pub(crate) fn access(&self) -> i32 {
        self.flags & libc::O_ACCMODE
    }
}

/// What was done to an original so that nobody answers for it while it is in doubt who has it.
/// Stands in the journal: another process may have to take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldObject {
    pub kind: String,
    pub pid: i32,
    pub fd: i32,
    pub inode: u64,
    /// What it was before, in the words of its kind.
    pub before: Vec<u8>,
}

/// The kind that claims a description, if there is one.
pub(crate) fn kind_of(seen: &Seen) -> Option<&'static KindEntry> {
    ALL.iter().find(|kind| (kind.claims)(seen))
}

/// The kind of that name, in a version that we can read.
pub(crate) fn kind_named(name: &str, version: u32) -> Option<&'static KindEntry> {
    ALL.iter().find(|kind| kind.name == name && (1..=kind.version).contains(&version))
}

#[cfg(fuzzing)]
pub(crate) fn parse_all(text: &str) {
    for line in text.lines() {
        let _ = epoll::parse(line);
        let _ = locks::parse(line);
        let _ = inotify::bytes(line);
    }
    let _ = (multicast::parse_v4(text), multicast::parse_v6(text));
    let _ = (netlink::is_dumping(text, 1), raw::listed_peer(text, 1));
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
