//! What an image says of itself. It is written last: a directory without it holds no image.

use super::copied::Copied;
use super::{Layout, TreeImage};
use crate::inventory::Inventory;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Manifest {
    /// When the tree stood still: milliseconds since 1970, as the wall clock of that host said.
    #[prost(uint64, tag = "1")]
    pub dumped_at_ms: u64,
    /// The host it ran on, in the words in which hosts introduce themselves to each other.
    #[prost(bytes = "vec", tag = "2")]
    pub host: Vec<u8>,
    /// What the tree needs, as a destination is told before it accepts.
    #[prost(message, optional, tag = "3")]
    pub inventory: Option<Inventory>,
    /// Every kind and aspect that whoever restores it has to know.
    #[prost(message, repeated, tag = "4")]
    pub kinds: Vec<Known>,
    #[prost(message, repeated, tag = "5")]
    pub aspects: Vec<Known>,
    /// The files beside it, with their digests; of the pages only how many bytes there are, as
    /// the index has a checksum of every block.
    #[prost(bytes = "vec", tag = "6")]
    pub tree_digest: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    pub index_digest: Vec<u8>,
    #[prost(uint64, tag = "8")]
    pub pages_bytes: u64,
    /// The image that has what is not here.
    #[prost(message, optional, tag = "9")]
    pub parent: Option<Parent>,
}

/// A kind or an aspect, with its version.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Known {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Parent {
    /// Where it was, absolute. One of the same name beside the child is found as well.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Of its manifest, which makes it this image and no other.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
}

/// All of a tree but its memory and the content of its files.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tree {
    #[prost(message, optional, tag = "1")]
    pub layout: Option<Layout>,
    #[prost(message, optional, tag = "2")]
    pub image: Option<TreeImage>,
    /// Files of the tree, if it was dumped with them.
    #[prost(message, optional, tag = "3")]
    pub copied: Option<Copied>,
}
