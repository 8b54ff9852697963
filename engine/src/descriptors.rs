//! Every descriptor of a tree: which descriptions they share, which objects those belong to, and
//! how they get from one host to another.
//!
//! On the source [`collect`] looks at all tables from outside, [`examine`] says what cannot be
//! moved, [`outline`] what the destination must have, and [`capture`] reads the objects of a frozen
//! tree. On the destination [`check`] answers an outline and [`paths`] says what would be opened;
//! [`create`] makes the objects in our own process, [`install`] puts them at their numbers in every
//! table, [`connect`] does what only the owners can do, and [`finish`] says who gets signals. What
//! others go on talking to while the tree stands still is in `standstill.rs`.

mod capture;
mod clocks;
mod create;
mod describe;
mod examine;
mod flight;
mod group;
mod install;
mod look;
mod peers;
mod standstill;
mod table;
#[cfg(test)]
mod trees;
#[cfg(test)]
pub(crate) mod trip;

use crate::kinds::DescriptionImage;
pub use capture::{capture, outline};
pub use create::{
    Awaiting, Made, check, create, cut_off, dismiss, finish, flows_of, identities, paths,
};
pub use describe::{At, Described, describe};
pub use examine::examine;
pub use install::{connect, install, numbers_needed};
pub use standstill::{
    flows, gates, go_live, have_connections, hold, leave, take_back, take_back_all, waiting,
};
pub use table::{Table, collect, collect_frozen};

#[cfg(fuzzing)]
pub(crate) fn parse_all(text: &[u8]) {
    crate::network::netlink::parse(text);
    let _ = peers::listed(text);
    let _ = clocks::parse(&String::from_utf8_lossy(text), "monotonic");
}

/// All descriptors of a tree with everything they lead to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DescriptorsImage {
    #[prost(message, repeated, tag = "1")]
    pub objects: Vec<ObjectImage>,
    #[prost(message, repeated, tag = "2")]
    pub descriptions: Vec<DescriptionImage>,
    #[prost(message, repeated, tag = "3")]
    pub descriptors: Vec<DescriptorImage>,
    /// What no table has, because it was sent through a socket and not yet received.
    #[prost(message, repeated, tag = "4")]
    pub in_flight: Vec<InFlightImage>,
}

/// A description that lies in the queue of another one.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct InFlightImage {
    #[prost(uint32, tag = "1")]
    pub description: u32,
    /// The socket in whose queue it lies; that one may be in flight itself.
    #[prost(uint32, tag = "2")]
    pub carrier: u32,
}

/// A kernel object, in the words of its kind.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectImage {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// `Kind::NAME`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// `Kind::VERSION`.
    #[prost(uint32, tag = "3")]
    pub version: u32,
    /// `Kind::Image`.
    #[prost(bytes = "vec", tag = "4")]
    pub bytes: Vec<u8>,
}

/// A number in the table of a process.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DescriptorImage {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(int32, tag = "2")]
    pub fd: i32,
    #[prost(bool, tag = "3")]
    pub close_on_exec: bool,
    /// The id of its description.
    #[prost(uint32, tag = "4")]
    pub description: u32,
}
