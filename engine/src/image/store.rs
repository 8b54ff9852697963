//! The pages of an image, by space and address, as they were when the tree stood still.

use super::PAGE;
use super::codec::unpack;
use super::copied::is_of_file;
use super::file::Input;
use super::index::{Block, Extent, Index, Place};
use crate::error::{Error, Object, OnObject as _};
use crate::memory::{PAGE_BYTES, PageSet, PageSink, Run};
use std::io;
use xxhash_rust::xxh3::xxh3_64;

/// May be read from several threads at once.
#[derive(Debug)]
pub struct Store {
    pages: Input,
    index: Index,
    parent: Option<Box<Store>>,
}

impl Store {
    pub(super) fn open(pages: Input, index: &[u8], parent: Option<Self>) -> Result<Self, Error> {
        let index = Index::decode(index, pages.bytes());
        let wrong = |why| Error::invalid("read the index of", pages.object(), why);
        let index = index.map_err(wrong)?;
        let store = Self { pages, index, parent: parent.map(Box::new) };
        store.check_parent()?;
        Ok(store)
    }

    /// Every page that is said to be in the parent is there.
    fn check_parent(&self) -> Result<(), Error> {
        for space in self.index.spaces() {
            for (address, extent) in self.index.extents(space) {
                let Place::Parent { space: there } = extent.place else { continue };
                let run = Run { address, pages: extent.pages };
                let has = self.parent.as_ref().map_or(0, |parent| {
                    parent.index.within(there, run).iter().map(|(_, found)| found.pages).sum()
                });
                if has != extent.pages {
                    let why = format!("it lacks pages of space {there} at {address:#x}");
                    return Err(Error::invalid("read the parent of", self.object(), why));
                }
            }
        }
        Ok(())
    }

    /// The spaces that are no file's.
    fn memory(&self) -> impl Iterator<Item = u32> + '_ {
        self.spaces().filter(|&space| !is_of_file(space))
    }

    pub fn spaces(&self) -> impl Iterator<Item = u32> + '_ {
        self.index.spaces()
    }

    /// The pages of a space, with those that are zeros.
    pub fn known(&self, space: u32) -> PageSet {
        let extents = self.index.extents(space);
        extents.map(|(address, extent)| Run { address, pages: extent.pages }).collect()
    }

    /// The pages of a space that are more than zeros.
    pub fn data(&self, space: u32) -> PageSet {
        let whole = self.index.extents(space);
        self.data_of(whole.collect())
    }

    fn data_of(&self, extents: Vec<(u64, Extent)>) -> PageSet {
        let mut data = PageSet::new();
        for (address, Extent { pages, place }) in extents {
            let run = Run { address, pages };
            match (place, &self.parent) {
                (Place::Block { .. }, _) => data.insert(address, pages),
                (Place::Parent { space }, Some(parent)) => {
                    data.insert_all(&parent.data_of(parent.index.within(space, run)));
                }
                (Place::Zeros | Place::Parent { .. }, _) => {}
            }
        }
        data
    }

    /// The pages of both spaces that are more than zeros and have one place: two processes shared
    /// them, copy-on-write.
    pub(super) fn shared(&self, one: u32, other: u32) -> PageSet {
        let extents = self.index.extents(other);
        let runs = extents.map(|(address, extent)| Run { address, pages: extent.pages });
        runs.flat_map(|run| self.shared_within(one, other, run)).collect()
    }

    fn shared_within(&self, one: u32, other: u32, run: Run) -> Vec<Run> {
        let mut shared = Vec::new();
        for (address, Extent { pages, .. }) in self.index.within(one, run) {
            for (address, extent) in self.index.within(other, Run { address, pages }) {
                // No longer than either of them, so there is just one.
                let run = Run { address, pages: extent.pages };
                let Some((_, theirs)) = self.index.within(one, run).into_iter().next() else {
                    continue;
                };
                match (theirs.place, extent.place, &self.parent) {
                    (Place::Block { .. }, place, _) if place == theirs.place => shared.push(run),
                    (
                        Place::Parent { space: one },
                        Place::Parent { space: other },
                        Some(parent),
                    ) => {
                        shared.extend(parent.shared_within(one, other, run));
                    }
                    _ => {}
                }
            }
        }
        shared
    }

    /// Bytes that its own file takes on the disk, and pages of memory that are in it.
    pub fn size(&self) -> Size {
        let blocks = self.index.blocks().iter();
        Size {
            stored_bytes: blocks.map(|block| u64::from(block.stored)).sum(),
            pages: self.memory().map(|space| self.data(space).pages()).sum(),
        }
    }

    /// Hands on all pages of a space, also its zeros.
    pub fn read_all(&self, space: u32, sink: &mut dyn PageSink) -> Result<(), Error> {
        self.read_extents(space, self.index.extents(space), sink)
    }

    /// Hands on what there is of these pages.
    pub fn read(&self, space: u32, run: Run, sink: &mut dyn PageSink) -> Result<(), Error> {
        self.read_extents(space, self.index.within(space, run).into_iter(), sink)
    }

    fn read_extents(
        &self,
        space: u32,
        extents: impl Iterator<Item = (u64, Extent)>,
        sink: &mut dyn PageSink,
    ) -> Result<(), Error> {
        let mut last: Option<(u32, Vec<u8>)> = None;
        for (address, Extent { pages, place }) in extents {
            let handed = match place {
                Place::Zeros => sink.zero(space, address, pages),
                Place::Block { block: number, first } => {
                    let known = last.take().filter(|(known, _)| *known == number);
                    let raw = match known {
                        Some((_, raw)) => raw,
                        None => self.read_block(self.block(number)?)?,
                    };
                    let from = usize::from(first) * PAGE;
                    let until = from + usize::try_from(pages * PAGE_BYTES).unwrap_or(usize::MAX);
                    let handed = sink.data(space, address, &raw[from..until]);
                    last = Some((number, raw));
                    handed
                }
                Place::Parent { space: there } => {
                    let parent = self.parent.as_ref().expect("checked when it was opened");
                    let mut renamed = Renamed { space, sink };
                    parent.read(there, Run { address, pages }, &mut renamed)?;
                    Ok(())
                }
            };
            handed.on("hand on the pages of", || self.object())?;
        }
        Ok(())
    }

    fn block(&self, number: u32) -> Result<&Block, Error> {
        let unknown = || Error::invalid("read", self.object(), "an extent has no block");
        self.index.block(number).ok_or_else(unknown)
    }

    /// Its bytes, which are those that were written.
    fn read_block(&self, block: &Block) -> Result<Vec<u8>, Error> {
        let mut stored = vec![0; block.stored as usize];
        self.pages.read_exact_at(&mut stored, block.offset)?;
        let raw = unpack(block.codec, stored, usize::from(block.pages) * PAGE);
        let raw = raw.ok().filter(|raw| xxh3_64(raw) == block.checksum);
        raw.ok_or_else(|| {
            let why = format!("the pages at {:#x} were changed on the disk", block.offset);
            Error::invalid("read", self.object(), why)
        })
    }

    /// Reads every block, of its parents as well.
    pub fn verify(&self) -> Result<(), Error> {
        for block in self.index.blocks() {
            self.read_block(block)?;
        }
        self.parent.as_ref().map_or(Ok(()), |parent| parent.verify())
    }

    fn object(&self) -> Object {
        self.pages.object()
    }
}

/// How large an image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub stored_bytes: u64,
    pub pages: u64,
}

/// What a parent has of a space, in the number that its child has for it.
struct Renamed<'a> {
    space: u32,
    sink: &'a mut dyn PageSink,
}

impl PageSink for Renamed<'_> {
    fn data(&mut self, _: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.sink.data(self.space, address, bytes)
    }

    fn zero(&mut self, _: u32, address: u64, pages: u64) -> io::Result<()> {
        self.sink.zero(self.space, address, pages)
    }

    fn dropped(&mut self, _: u32, address: u64, pages: u64) -> io::Result<()> {
        self.sink.dropped(self.space, address, pages)
    }
}
