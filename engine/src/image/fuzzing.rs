//! Doors for the fuzz target of a stored image. They are not there in any other build.

use super::directory::{INDEX, MANIFEST, PAGES, TREE};
use super::index::Index;
use super::{Identities, Manifest, StoredImage, framed};
use crate::error::Error;
use crate::memory::PageSink;
use prost::Message as _;
use std::path::Path;
use std::{fs, io};

/// The index of a file of pages of that length.
pub fn index(bytes: &[u8], pages_bytes: u64) {
    if let Ok(index) = Index::decode(bytes, pages_bytes) {
        let again = Index::decode(&index.encode(), pages_bytes).expect("it was written by us");
        assert_eq!(again.encode(), index.encode());
    }
}

/// A file that is one message.
pub fn framed(bytes: &[u8]) {
    for what in [MANIFEST, TREE, INDEX] {
        if let Ok(message) = framed::decode(what, bytes) {
            assert_eq!(framed::encode(what, message), bytes);
        }
    }
}

/// An image of these parts, whose digests are right: as somebody writes it who means harm.
pub fn write(
    directory: &Path,
    manifest: Manifest,
    [tree, index, pages]: [&[u8]; 3],
) -> io::Result<()> {
    let (tree, index) = (framed::encode(TREE, tree), framed::encode(INDEX, index));
    let manifest = Manifest {
        tree_digest: blake3::hash(&tree).as_bytes().to_vec(),
        index_digest: blake3::hash(&index).as_bytes().to_vec(),
        pages_bytes: pages.len() as u64,
        ..manifest
    };
    let manifest = framed::encode(MANIFEST, &manifest.encode_to_vec());
    for (name, bytes) in [(TREE, &*tree), (INDEX, &*index), (PAGES, pages), (MANIFEST, &*manifest)]
    {
        fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}

/// Everything that is done with an image before a process is made of it.
pub fn open(directory: &Path) -> Result<(), Error> {
    let image = StoredImage::open(directory, &Identities::default())?;
    let _ = image.verify();
    let _ = image.store().size();
    for space in image.store().spaces() {
        let _ = image.store().read_all(space, &mut Nowhere);
    }
    let descriptors = image.tree().image.as_ref().and_then(|image| image.descriptors.as_ref());
    descriptors.map_or(Ok(()), |table| crate::descriptors::describe(table).map(drop))
}

struct Nowhere;

impl PageSink for Nowhere {
    fn data(&mut self, _: u32, _: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(!bytes.is_empty(), "there are pages");
        Ok(())
    }

    fn zero(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn dropped(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
