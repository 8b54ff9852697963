//! Writing a tree into a directory: pages round by round as they are sent to it, the rest at last.

use super::codec::Packer;
use super::copied::is_of_file;
use super::directory::{INDEX, PAGES, TREE, Unfinished};
use super::file::Output;
use super::index::{Block, Index, Place};
use super::keys::{Identities, Recipients};
use super::manifest::{Manifest, Parent, Tree};
use super::stored::StoredImage;
use super::{Layout, PAGE};
use crate::error::{Error, Object, OnObject as _};
use crate::memory::{PAGE_BYTES, PageSet, PageSink, Run};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// How pages are to be written.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    pub compress: bool,
    /// An image of the same tree: what it has is not written again.
    pub parent: Option<PathBuf>,
    /// For whom it is sealed, if for anybody.
    pub recipients: Recipients,
    /// What opens the parent.
    pub identities: Identities,
}

/// An image that is being written. Dropping it leaves nothing of it.
#[derive(Debug)]
pub struct Writer {
    directory: Unfinished,
    pages: Output,
    end: u64,
    index: Index,
    packer: Packer,
    room: Vec<u8>,
    parent: Option<Known>,
}

/// The parent, and which of its spaces are ours.
#[derive(Debug)]
struct Known {
    image: StoredImage,
    spaces: BTreeMap<u32, u32>,
}

impl Writer {
    /// Takes a directory that is not there, or empty.
    pub fn create(path: &Path, manner: &Manner) -> Result<Self, Error> {
        let parent = manner.parent.as_deref();
        let parent = parent.map(|parent| StoredImage::open_as_parent(parent, &manner.identities));
        let parent = parent.transpose()?;
        if let Some(parent) = parent.as_ref().filter(|parent| parent.is_sealed()) {
            keep_secret(parent, &manner.recipients)?;
        }
        let parent = parent.map(|image| Known { image, spaces: BTreeMap::new() });
        let directory = Unfinished::claim(path, &manner.recipients)?;
        let pages = directory.create(PAGES)?;
        let packer = Packer::new(manner.compress).on("compress on", || Object::Host)?;
        let (index, room) = (Index::default(), Vec::new());
        Ok(Self { directory, pages, end: 0, index, packer, room, parent })
    }

    /// The shape of the tree, before each round: spaces that began as forks have what the others had
    /// then, and what the tree has no more is forgotten.
    pub fn shape(&mut self, layout: &Layout) -> Result<(), Error> {
        let known: BTreeSet<u32> = self.index.spaces().collect();
        for process in layout.processes.iter().filter(|process| process.forked_from != 0) {
            if !known.contains(&process.space) {
                self.index.fork(process.forked_from, process.space);
            }
        }
        let processes = layout.processes.iter().map(|process| process.space);
        let wanted: BTreeSet<u32> =
            processes.chain(layout.shared.iter().map(|object| object.space)).collect();
        self.retain(|space| is_of_file(space) || wanted.contains(&space));
        if let Some(parent) = &mut self.parent {
            parent.recognise(layout);
        }
        Ok(())
    }

    /// Makes it whole. `manifest` says what the caller knows of the tree and of its host. Returns how
    /// many pages of memory there are that are more than zeros, with those of its parents.
    pub fn finish(mut self, tree: &Tree, manifest: Manifest) -> Result<u64, Error> {
        if let Some(layout) = &tree.layout {
            self.shape(layout)?;
            self.check_places(layout)?;
        }
        let files = tree.copied.iter().flat_map(|copied| &copied.files);
        let files: BTreeSet<u32> = files.map(|file| file.space).collect();
        self.retain(|space| !is_of_file(space) || files.contains(&space));
        let tree_digest = self.directory.write(TREE, &tree.encode_to_vec())?;
        let index_digest = self.directory.write(INDEX, &self.index.encode())?;
        let pages = self.directory.path_of(PAGES);
        let object = || Object::File { path: pages.display().to_string() };
        self.pages.finish().on("write", object)?;
        let parent = self.parent.take().map(|known| Parent {
            path: known.image.path().as_os_str().as_bytes().to_vec(),
            digest: known.image.digest().to_vec(),
        });
        let manifest = Manifest {
            tree_digest: tree_digest.to_vec(),
            index_digest: index_digest.to_vec(),
            pages_bytes: self.end,
            parent,
            ..manifest
        };
        let spaces = self.index.spaces().filter(|&space| !is_of_file(space));
        let extents = spaces.flat_map(|space| self.index.extents(space));
        let data = extents.filter(|(_, extent)| extent.place != Place::Zeros);
        let pages = data.map(|(_, extent)| extent.pages).sum();
        self.directory.finish(&manifest.encode_to_vec())?;
        Ok(pages)
    }

    /// What the source said was gone is gone: a page in no mapping could never be put anywhere.
    fn check_places(&self, layout: &Layout) -> Result<(), Error> {
        layout.processes.iter().try_for_each(|process| {
            let mapped = process.mappings.iter().filter(|mapping| !mapping.shared);
            let mapped: PageSet =
                mapped.map(|mapping| Run::covering(mapping.start, mapping.end)).collect();
            let extents = self.index.extents(process.space);
            let known = extents.map(|(address, extent)| Run { address, pages: extent.pages });
            match known.collect::<PageSet>().difference(&mapped).runs().next() {
                None => Ok(()),
                Some(run) => {
                    let why = format!("its page at {:#x} is in no mapping", run.address);
                    let process = Object::Process { pid: process.pid };
                    Err(Error::invalid("account for the memory of", process, why))
                }
            }
        })
    }

    /// Which files are going to be copied, and the space of each: those of the parent are known again.
    pub fn recognise_files(&mut self, files: &[(PathBuf, u32)]) {
        if let Some(known) = &mut self.parent {
            known.recognise_files(files);
        }
    }

    fn retain(&mut self, is_wanted: impl Fn(u32) -> bool) {
        let dead = self.index.retain_spaces(is_wanted);
        self.give_back(dead);
    }

    fn give_back(&self, dead: Vec<Block>) {
        dead.iter().for_each(|block| self.pages.give_back(block.offset, block.stored));
    }

    /// A block of its own for these pages.
    fn write(&mut self, space: u32, address: u64, raw: &[u8]) -> io::Result<()> {
        let (codec, stored) = self.packer.pack(raw, &mut self.room);
        self.pages.append(stored)?;
        let pages = raw.len() as u64 / PAGE_BYTES;
        let length = u32::try_from(stored.len()).expect("a block has 64 KiB at most");
        let count = u16::try_from(pages).expect("a block has 16 pages at most");
        let block = Block::new(self.end, length, count, codec, xxh3_64(raw));
        self.end += u64::from(length);
        let block = self.index.add(block);
        self.put(space, Run { address, pages }, Place::Block { block, first: 0 });
        Ok(())
    }

    fn put(&mut self, space: u32, run: Run, place: Place) {
        let dead = self.index.put(space, run, place);
        self.give_back(dead);
    }

    /// Of each page, in which space the parent has the same.
    fn known(&self, space: u32, address: u64, bytes: &[u8]) -> io::Result<(u32, Vec<bool>)> {
        let pages = bytes.len() / PAGE;
        let mut same = Same { address, bytes, pages: vec![false; pages] };
        let parent = self.parent.as_ref();
        let there = parent.and_then(|known| known.spaces.get(&space).copied());
        if let (Some(known), Some(there)) = (parent, there) {
            let run = Run { address, pages: pages as u64 };
            known.image.store().read(there, run, &mut same).map_err(io::Error::other)?;
        }
        Ok((there.unwrap_or(0), same.pages))
    }
}

/// What was sealed in the parent may come again in the child.
fn keep_secret(parent: &StoredImage, recipients: &Recipients) -> Result<(), Error> {
    let object = Object::File { path: parent.path().display().to_string() };
    let why = "it is encrypted, and the increment would not be (`--encrypt-to RECIPIENT`)";
    match recipients.is_empty() {
        true => Err(Error::invalid("build upon", object, why)),
        false => Ok(()),
    }
}

impl Known {
    fn recognise_files(&mut self, files: &[(PathBuf, u32)]) {
        let ours = self.image.tree().copied.iter().flat_map(|copied| &copied.files);
        let ours: BTreeMap<&Path, u32> = ours.map(|file| (file.path(), file.space)).collect();
        for (path, space) in files {
            self.spaces.extend(ours.get(&**path).map(|same| (*space, *same)));
        }
    }

    /// Processes by their ids, shared objects by what they are and their order. To be wrong costs
    /// space and nothing else: what is not the same is written.
    fn recognise(&mut self, layout: &Layout) {
        let Some(ours) = &self.image.tree().layout else { return };
        for process in &layout.processes {
            if let Some(same) = ours.process(process.pid) {
                self.spaces.insert(process.space, same.space);
            }
        }
        for (object, same) in layout.shared.iter().zip(&ours.shared) {
            if object.origin == same.origin {
                self.spaces.insert(object.space, same.space);
            }
        }
    }
}

impl PageSink for Writer {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        let (there, known) =
            self.known(space, address, bytes).map_err(|error| self.named(error))?;
        let mut from = 0;
        for alike in known.chunk_by(|one, next| one == next) {
            let at = address + from as u64 * PAGE_BYTES;
            let until = from + alike.len();
            match alike[0] {
                true => {
                    let run = Run { address: at, pages: alike.len() as u64 };
                    self.put(space, run, Place::Parent { space: there });
                }
                false => self
                    .write(space, at, &bytes[from * PAGE..until * PAGE])
                    .map_err(|error| self.named(error))?,
            }
            from = until;
        }
        Ok(())
    }

    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.put(space, Run { address, pages }, Place::Zeros);
        Ok(())
    }

    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        let dead = self.index.remove(space, Run { address, pages });
        self.give_back(dead);
        Ok(())
    }
}

impl Writer {
    /// Whoever hands pages on does not know where they go.
    fn named(&self, error: io::Error) -> io::Error {
        let path = self.directory.path_of(PAGES);
        io::Error::new(error.kind(), format!("write {}: {error}", path.display()))
    }
}

/// Compares pages with those that it is handed.
struct Same<'a> {
    address: u64,
    bytes: &'a [u8],
    pages: Vec<bool>,
}

impl PageSink for Same<'_> {
    fn data(&mut self, _: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from((address - self.address) / PAGE_BYTES).unwrap_or(usize::MAX);
        let ours = self.bytes[from * PAGE..].chunks(PAGE).zip(bytes.chunks(PAGE));
        for (same, (ours, theirs)) in self.pages[from..].iter_mut().zip(ours) {
            *same = ours == theirs;
        }
        Ok(())
    }

    fn zero(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn dropped(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
