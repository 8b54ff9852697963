//! Every descriptor of a tree: which descriptions they share, which objects those belong to, and
//! how they get from one host to another.
//!
//! On the source [`collect`] looks at all tables from outside, [`examine`] says what cannot be
//! moved, [`outline`] what the destination must have, and [`capture`] reads the objects of a frozen
//! tree. On the destination [`check`] answers an outline; [`create`] makes the objects in our own
//! process, [`install`] puts them at their numbers in every table, [`connect`] does what only the
//! owners can do, and [`finish`] says who gets signals.

mod capture;
mod clocks;
mod create;
mod examine;
mod group;
mod install;
mod look;
mod peers;
mod table;
#[cfg(test)]
mod trees;
#[cfg(test)]
pub(crate) mod trip;

use crate::kinds::DescriptionImage;
pub use capture::{capture, outline};
pub use create::{Made, check, create, finish};
pub use examine::examine;
pub use install::{connect, install, numbers_needed};
pub use table::{Table, collect};

/// All descriptors of a tree with everything they lead to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DescriptorsImage {
    #[prost(message, repeated, tag = "1")]
    pub objects: Vec<ObjectImage>,
    #[prost(message, repeated, tag = "2")]
    pub descriptions: Vec<DescriptionImage>,
    #[prost(message, repeated, tag = "3")]
    pub descriptors: Vec<DescriptorImage>,
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
