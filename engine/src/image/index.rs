//! Where every page of every space is: the part of an image that makes it random access.
//!
//! Pages lie in *blocks* of up to 16, as they were written. An *extent* is a run of pages of one
//! space that lies in one block, or is zeros, or is where the parent image has it. A page that is
//! written again gets a new place, and a block that nobody needs any more can be given back.

use super::PAGE;
use super::codec::Codec;
use crate::memory::{DATA_BYTES_MAX, PAGE_BYTES, Run};
use std::collections::BTreeMap;

const BLOCK_PAGES_MAX: u64 = DATA_BYTES_MAX as u64 / PAGE_BYTES;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    blocks: Vec<Block>,
    /// Of every space: its extents by their first address.
    spaces: BTreeMap<u32, BTreeMap<u64, Extent>>,
}

/// Pages that were written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// In the file of pages.
    pub(super) offset: u64,
    /// xxh3 of the raw bytes.
    pub(super) checksum: u64,
    /// Bytes in the file.
    pub(super) stored: u32,
    pub(super) pages: u16,
    pub(super) codec: Codec,
    /// Pages of it that an extent shows.
    live: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) pages: u64,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Zeros,
    /// From this page of this block on.
    Block {
        block: u32,
        first: u16,
    },
    /// At the same address of this space of the parent.
    Parent {
        space: u32,
    },
}

impl Block {
    pub(super) fn new(offset: u64, stored: u32, pages: u16, codec: Codec, checksum: u64) -> Self {
        Self { offset, checksum, stored, pages, codec, live: 0 }
    }
}

impl Extent {
    /// Without its first pages.
    fn after(self, pages: u64) -> Self {
        let place = match self.place {
            // A block has 16 pages at most.
            Place::Block { block, first } => {
                Place::Block { block, first: first + u16::try_from(pages).unwrap_or(u16::MAX) }
            }
            place => place,
        };
        Self { pages: self.pages - pages, place }
    }
}

impl Index {
    /// The number of a new block, which nothing shows yet.
    pub(super) fn add(&mut self, block: Block) -> u32 {
        self.blocks.push(block);
        u32::try_from(self.blocks.len() - 1).expect("2^32 blocks are 256 TiB")
    }

    pub(super) fn block(&self, block: u32) -> Option<&Block> {
        self.blocks.get(block as usize)
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn spaces(&self) -> impl Iterator<Item = u32> + '_ {
        self.spaces.keys().copied()
    }

    /// From here on these pages are there. Returns the blocks that nothing shows any more.
    pub(super) fn put(&mut self, space: u32, run: Run, place: Place) -> Vec<Block> {
        let dead = self.remove(space, run);
        let extent = Extent { pages: run.pages, place };
        self.count(extent, 1);
        self.spaces.entry(space).or_default().insert(run.address, extent);
        dead
    }

    /// From here on these pages are nowhere. Returns the blocks that nothing shows any more.
    pub(super) fn remove(&mut self, space: u32, run: Run) -> Vec<Block> {
        let mut dead = Vec::new();
        for (address, extent) in self.meeting(space, run) {
            let extents = self.spaces.get_mut(&space).expect("it has extents");
            extents.remove(&address);
            let end = address + extent.pages * PAGE_BYTES;
            let from = address.max(run.address);
            let until = end.min(run.end());
            if address < from {
                let pages = (from - address) / PAGE_BYTES;
                extents.insert(address, Extent { pages, ..extent });
            }
            if until < end {
                extents.insert(until, extent.after((until - address) / PAGE_BYTES));
            }
            let gone = Extent { pages: (until - from) / PAGE_BYTES, ..extent };
            dead.extend(self.count(gone, -1));
        }
        dead
    }

    /// A block that is shown no more.
    fn count(&mut self, extent: Extent, sign: i64) -> Option<Block> {
        let Place::Block { block, .. } = extent.place else { return None };
        let block = &mut self.blocks[block as usize];
        let pages = i64::try_from(extent.pages).unwrap_or(i64::MAX);
        block.live = u32::try_from(i64::from(block.live) + sign * pages).unwrap_or(0);
        (block.live == 0).then_some(*block)
    }

    fn meeting(&self, space: u32, run: Run) -> Vec<(u64, Extent)> {
        let Some(extents) = self.spaces.get(&space) else { return Vec::new() };
        let ends_behind = |(address, extent): &(&u64, &Extent)| {
            *address + extent.pages * PAGE_BYTES > run.address
        };
        let before = extents.range(..run.address).next_back().filter(ends_behind);
        let inside = extents.range(run.address..run.end().max(run.address));
        before.into_iter().chain(inside).map(|(&address, &extent)| (address, extent)).collect()
    }

    /// What is known of these pages, by rising address.
    pub(super) fn within(&self, space: u32, run: Run) -> Vec<(u64, Extent)> {
        let cut = |(address, extent): (u64, Extent)| {
            let from = address.max(run.address);
            let until = (address + extent.pages * PAGE_BYTES).min(run.end());
            let extent = extent.after((from - address) / PAGE_BYTES);
            (from, Extent { pages: (until - from) / PAGE_BYTES, ..extent })
        };
        self.meeting(space, run).into_iter().map(cut).collect()
    }

    pub(super) fn extents(&self, space: u32) -> impl Iterator<Item = (u64, Extent)> + '_ {
        let extents = self.spaces.get(&space).into_iter().flatten();
        extents.map(|(&address, &extent)| (address, extent))
    }

    /// A space that begins with everything that another one has by now.
    pub(super) fn fork(&mut self, parent: u32, child: u32) {
        let extents: Vec<_> = self.extents(parent).collect();
        for (address, extent) in extents {
            self.put(child, Run { address, pages: extent.pages }, extent.place);
        }
    }

    /// Spaces that the tree no longer has.
    pub(super) fn retain_spaces(&mut self, is_wanted: impl Fn(u32) -> bool) -> Vec<Block> {
        let unwanted: Vec<u32> = self.spaces().filter(|&space| !is_wanted(space)).collect();
        let mut dead = Vec::new();
        for space in unwanted {
            for (_, extent) in self.spaces.remove(&space).into_iter().flatten() {
                dead.extend(self.count(extent, -1));
            }
        }
        dead
    }
}

const BLOCK_BYTES: usize = 24;
const EXTENT_BYTES: usize = 24;

mod kind {
    pub(super) const ZEROS: u16 = 0;
    pub(super) const BLOCK: u16 = 1;
    pub(super) const PARENT: u16 = 2;
}

/// The file, little-endian: the number of blocks (u64); of each its offset (u64), checksum (u64),
/// stored bytes (u32), pages (u16), codec (u16); the number of spaces (u64); of each its number
/// (u64) and that of its extents (u64), and of each of these its address (u64), pages (u64), kind
/// (u16), first page in its block (u16), and the block's or the parent's space's number (u32).
impl Index {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut numbers = BTreeMap::new();
        let mut bytes = Vec::new();
        let live = self.blocks.iter().enumerate().filter(|(_, block)| block.live > 0);
        let live: Vec<_> = live.collect();
        bytes.extend_from_slice(&(live.len() as u64).to_le_bytes());
        for (new, (old, block)) in live.into_iter().enumerate() {
            numbers.insert(old, u32::try_from(new).expect("fewer than there were"));
            bytes.extend_from_slice(&block.offset.to_le_bytes());
            bytes.extend_from_slice(&block.checksum.to_le_bytes());
            bytes.extend_from_slice(&block.stored.to_le_bytes());
            bytes.extend_from_slice(&block.pages.to_le_bytes());
            bytes.extend_from_slice(&block.codec.number().to_le_bytes());
        }
        bytes.extend_from_slice(&(self.spaces.len() as u64).to_le_bytes());
        for (&space, extents) in &self.spaces {
            bytes.extend_from_slice(&u64::from(space).to_le_bytes());
            bytes.extend_from_slice(&(extents.len() as u64).to_le_bytes());
            for (&address, extent) in extents {
                let (kind, first, number) = match extent.place {
                    Place::Zeros => (kind::ZEROS, 0, 0),
                    Place::Block { block, first } => {
                        (kind::BLOCK, first, numbers[&(block as usize)])
                    }
                    Place::Parent { space } => (kind::PARENT, 0, space),
                };
                bytes.extend_from_slice(&address.to_le_bytes());
                bytes.extend_from_slice(&extent.pages.to_le_bytes());
                bytes.extend_from_slice(&kind.to_le_bytes());
                bytes.extend_from_slice(&first.to_le_bytes());
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes
    }

    /// Refuses what would later lead out of the file, or into a page twice. `pages_bytes`: the
    /// length of the file of pages.
    pub(super) fn decode(bytes: &[u8], pages_bytes: u64) -> Result<Self, String> {
        let mut rest = Rest(bytes);
        let mut index = Self::default();
        for number in 0..rest.count(BLOCK_BYTES)? {
            let offset = rest.u64()?;
            let checksum = rest.u64()?;
            let stored = rest.u32()?;
            let pages = rest.u16()?;
            let codec = Codec::of_number(rest.u16()?);
            let codec = codec.ok_or_else(|| format!("block {number} has an unknown codec"))?;
            let is_in_file = offset.checked_add(stored.into()).is_some_and(|e| e <= pages_bytes);
            let fits = (1..=BLOCK_PAGES_MAX).contains(&u64::from(pages))
                && codec.fits(stored as usize, usize::from(pages) * PAGE);
            if !is_in_file || !fits {
                return Err(format!("block {number} is not within the file of pages"));
            }
            index.blocks.push(Block::new(offset, stored, pages, codec, checksum));
        }
        for _ in 0..rest.count(2 * size_of::<u64>())? {
            let space = rest.u64()?;
            let space = u32::try_from(space).map_err(|_| format!("space {space} is none"))?;
            if index.spaces.contains_key(&space) {
                return Err(format!("space {space} is there twice"));
            }
            let mut from = 0;
            for _ in 0..rest.count(EXTENT_BYTES)? {
                let (address, extent) = rest.extent()?;
                let wrong = |why| format!("the pages at {address:#x} of space {space} {why}");
                let end = extent.pages.checked_mul(PAGE_BYTES).and_then(|n| n.checked_add(address));
                let end = end.filter(|&end| end <= i64::MAX.unsigned_abs() && extent.pages > 0);
                let end = end.filter(|_| address.is_multiple_of(PAGE_BYTES) && address >= from);
                from = end.ok_or_else(|| wrong("are no run behind the others"))?;
                if !index.has(extent) {
                    return Err(wrong("are in no block"));
                }
                index.put(space, Run { address, pages: extent.pages }, extent.place);
            }
            index.spaces.entry(space).or_default();
        }
        if rest.0.is_empty() { Ok(index) } else { Err("something follows its end".to_owned()) }
    }

    fn has(&self, extent: Extent) -> bool {
        let Place::Block { block, first } = extent.place else { return true };
        let end = extent.pages.checked_add(u64::from(first));
        self.block(block).is_some_and(|block| end.is_some_and(|end| end <= block.pages.into()))
    }
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("it is cut off")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.take().map(u16::from_le_bytes)
    }

    /// Of things of at least so many bytes: no more than there is room for.
    fn count(&mut self, bytes: usize) -> Result<u64, String> {
        let count = self.u64()?;
        match count <= (self.0.len() / bytes) as u64 {
            true => Ok(count),
            false => Err(format!("it is too short for {count} entries")),
        }
    }

    fn extent(&mut self) -> Result<(u64, Extent), String> {
        let (address, pages) = (self.u64()?, self.u64()?);
        let (kind, first, number) = (self.u16()?, self.u16()?, self.u32()?);
        let place = match kind {
            kind::ZEROS => Place::Zeros,
            kind::BLOCK => Place::Block { block: number, first },
            kind::PARENT => Place::Parent { space: number },
            kind => return Err(format!("{kind} is no kind of extent")),
        };
        Ok((address, Extent { pages, place }))
    }
}

#[cfg(test)]
mod tests;
