//! Memory that processes share, carried once, by object.
//!
//! Writes to it cannot be tracked: they come through any mapping, of any process, also one that
//! has ended since, or through write(2). So each round reads the object and compares hashes. A
//! hash is always of the very bytes that were sent; one taken at another moment could call a page
//! unchanged that the destination never saw.

use super::backing::ObjectKey;
use super::mapping::Mapping;
use super::read::is_zero;
use super::{DATA_BYTES_MAX, PAGE_BYTES, PageSet, PageSink, Run};
use crate::error::{Error, Object, OnObject as _};
use nix::unistd::{Whence, lseek};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use xxhash_rust::xxh3::xxh3_64;

const PAGE: usize = 4096;
const CHUNK_BYTES: u64 = DATA_BYTES_MAX as u64;
const CHUNK_PAGES: usize = DATA_BYTES_MAX / PAGE;

/// What the destination has of one chunk. `None`: reads as zeros, was never sent.
type ChunkHashes = [Option<u64>; CHUNK_PAGES];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedRound {
    pub data_pages: u64,
    pub zero_pages: u64,
    pub dropped_pages: u64,
}

/// One object. Addresses of its space are offsets.
#[derive(Debug)]
pub struct SharedObject {
    space: u32,
    file: File,
    name: String,
    chunks: BTreeMap<u64, ChunkHashes>,
    buffer: Vec<u8>,
}

impl SharedObject {
    /// Through a mapping of it. Needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
    pub fn open(pid: i32, mapping: &Mapping, space: u32) -> Result<Self, Error> {
        let file = File::open(mapping.link(pid))
            .on("open the shared memory behind", || mapping.object(pid))?;
        Ok(Self::new(file, String::from_utf8_lossy(&mapping.path).into_owned(), space))
    }

    /// A descriptor taken from the process, of a memfd that may not be mapped at all.
    pub fn new(file: File, name: String, space: u32) -> Self {
        Self { space, file, name, chunks: BTreeMap::new(), buffer: vec![0; DATA_BYTES_MAX] }
    }

    pub fn space(&self) -> u32 {
        self.space
    }

    pub fn key(&self) -> Result<ObjectKey, Error> {
        let file = self.file.metadata().on("look at", || self.object())?;
        Ok(ObjectKey { device: file.dev(), inode: file.ino() })
    }

    /// In bytes, not always whole pages.
    pub fn size(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().on("look at", || self.object())?.len())
    }

    /// Sends what differs from what the destination has. While anybody writes, the next round
    /// sends the rest.
    pub fn round(&mut self, sink: &mut dyn PageSink) -> Result<SharedRound, Error> {
        let object = self.object();
        self.send_changes(sink).on("send the content of", || object)
    }

    fn object(&self) -> Object {
        Object::File { path: self.name.clone() }
    }

    fn send_changes(&mut self, sink: &mut dyn PageSink) -> io::Result<SharedRound> {
        let mut round = SharedRound::default();
        let data = data_pages(&self.file)?;
        for run in data.runs() {
            for start in chunks_of(run) {
                self.send_chunk(start, run, &mut round, sink)?;
            }
        }
        round.dropped_pages = self.drop_holes(&data, sink)?;
        Ok(round)
    }

    /// The part of the chunk that is in `run`.
    fn send_chunk(
        &mut self,
        chunk: u64,
        run: Run,
        round: &mut SharedRound,
        sink: &mut dyn PageSink,
    ) -> io::Result<()> {
        let (start, end) = (chunk.max(run.address), run.end().min(chunk + CHUNK_BYTES));
        let bytes = usize::try_from(end - start).map_err(io::Error::other)?;
        read_padded(&self.file, &mut self.buffer[..bytes], start)?;
        let hashes = self.chunks.entry(chunk).or_default();
        let first = page_of_chunk(start, chunk);
        let mut changed =
            Changed { space: self.space, start, bytes: &self.buffer[..bytes], sink, round };
        changed.send(&mut hashes[first..])
    }

    /// What was sent and is a hole now, or beyond the end.
    fn drop_holes(&mut self, data: &PageSet, sink: &mut dyn PageSink) -> io::Result<u64> {
        let mut dropped = PageSet::new();
        for (chunk, hashes) in &mut self.chunks {
            for (index, hash) in hashes.iter_mut().enumerate() {
                let address = chunk + (index * PAGE) as u64;
                if hash.is_some() && !data.contains(address) {
                    *hash = None;
                    dropped.insert(address, 1);
                }
            }
        }
        dropped.runs().try_for_each(|run| sink.dropped(self.space, run.address, run.pages))?;
        Ok(dropped.pages())
    }
}

/// A part of a chunk as it is now.
struct Changed<'a> {
    space: u32,
    start: u64,
    bytes: &'a [u8],
    sink: &'a mut dyn PageSink,
    round: &'a mut SharedRound,
}

impl Changed<'_> {
    fn send(&mut self, hashes: &mut [Option<u64>]) -> io::Result<()> {
        let mut data: Option<std::ops::Range<usize>> = None;
        for (index, page) in self.bytes.chunks_exact(PAGE).enumerate() {
            let now = (!is_zero(page)).then(|| xxh3_64(page));
            if now == hashes[index] {
                continue;
            }
            match (now, &mut data) {
                (None, _) => self.zero(index)?,
                (Some(_), Some(run)) if run.end == index => run.end += 1,
                (Some(_), run) => {
                    let before = run.replace(index..index + 1);
                    self.data(before)?;
                }
            }
            hashes[index] = now;
        }
        self.data(data)
    }

    fn zero(&mut self, index: usize) -> io::Result<()> {
        self.round.zero_pages += 1;
        self.sink.zero(self.space, self.start + (index * PAGE) as u64, 1)
    }

    fn data(&mut self, pages: Option<std::ops::Range<usize>>) -> io::Result<()> {
        let Some(pages) = pages else { return Ok(()) };
        self.round.data_pages += pages.len() as u64;
        let bytes = &self.bytes[pages.start * PAGE..pages.end * PAGE];
        self.sink.data(self.space, self.start + (pages.start * PAGE) as u64, bytes)
    }
}

fn chunks_of(run: Run) -> impl Iterator<Item = u64> {
    let first = run.address - run.address % CHUNK_BYTES;
    (first..run.end()).step_by(DATA_BYTES_MAX)
}

fn page_of_chunk(address: u64, chunk: u64) -> usize {
    usize::try_from((address - chunk) / PAGE_BYTES).expect("sixteen pages")
}

/// Where the file has data. A file system that knows no holes calls everything data.
fn data_pages(file: &File) -> io::Result<PageSet> {
    let mut pages = PageSet::new();
    let mut from = 0;
    loop {
        let start = match lseek(file, from, Whence::SeekData) {
            Ok(start) => start,
            Err(nix::Error::ENXIO) => return Ok(pages), // no data after this
            Err(error) => return Err(error.into()),
        };
        from = match lseek(file, start, Whence::SeekHole) {
            Ok(end) => end,
            Err(nix::Error::ENXIO) => return Ok(pages), // it shrank in between
            Err(error) => return Err(error.into()),
        };
        pages.extend([Run::covering(start.cast_unsigned(), from.cast_unsigned())]);
    }
}

/// What is beyond the end reads as zeros, as it does in a mapping's last page.
fn read_padded(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    into[filled..].fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::backing::{MappingKind, Origin, kinds};
    use crate::memory::mapping;
    use crate::memory::test_program::{Program, Replica};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    fn memfd(pages: u64) -> (File, SharedObject) {
        let file = File::from(memfd_create("object", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(pages * PAGE_BYTES).unwrap();
        let object = SharedObject::new(file.try_clone().unwrap(), "object".to_owned(), 7);
        (file, object)
    }

    #[test]
    fn holes_cost_nothing_and_content_is_sent_once() {
        let (file, mut object) = memfd(1 << 20);
        file.write_at(&[1; 3 * PAGE], 5 * PAGE_BYTES).unwrap();
        let mut replica = Replica::default();
        let first = object.round(&mut replica).unwrap();
        assert_eq!(first, SharedRound { data_pages: 3, ..SharedRound::default() });
        assert_eq!(object.round(&mut replica).unwrap(), SharedRound::default());
    }

    #[test]
    fn a_write_costs_its_page_and_zeros_cost_no_bytes() {
        let (file, mut object) = memfd(64);
        file.write_at(&[1; 64 * PAGE], 0).unwrap();
        let mut replica = Replica::default();
        object.round(&mut replica).unwrap();
        file.write_at(&[2], 20 * PAGE_BYTES).unwrap();
        file.write_at(&[0; PAGE], 40 * PAGE_BYTES).unwrap();
        let round = object.round(&mut replica).unwrap();
        assert_eq!(round, SharedRound { data_pages: 1, zero_pages: 1, dropped_pages: 0 });
        assert_eq!(replica.page(20 * PAGE_BYTES)[0], 2);
        assert!(is_zero(replica.page(40 * PAGE_BYTES)));
    }

    #[test]
    fn punched_holes_and_cut_ends_are_dropped_once() {
        let (file, mut object) = memfd(64);
        file.write_at(&[1; 64 * PAGE], 0).unwrap();
        let mut replica = Replica::default();
        object.round(&mut replica).unwrap();
        let flags = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        nix::fcntl::fallocate(&file, flags, 8 * 4096, 2 * 4096).unwrap();
        file.set_len(60 * PAGE_BYTES).unwrap();
        assert_eq!(object.round(&mut replica).unwrap().dropped_pages, 6);
        assert_eq!(object.round(&mut replica).unwrap().dropped_pages, 0);
        assert_eq!(replica.pages(), 58);
    }

    #[test]
    fn the_last_page_of_a_short_file_is_filled_up_with_zeros() {
        let (file, mut object) = memfd(0);
        file.write_at(b"short", 0).unwrap();
        let mut replica = Replica::default();
        assert_eq!(object.round(&mut replica).unwrap().data_pages, 1);
        assert_eq!(&replica.page(0)[..6], b"short\0");
        assert_eq!(object.size().unwrap(), 5);
    }

    #[test]
    fn every_kind_of_shared_memory_opens_through_its_mapping() {
        let program = Program::start("regions");
        let mut mappings = mapping::read(program.pid).unwrap();
        let all = kinds(program.pid, &mut mappings).unwrap();
        for name in ["shared", "memfd", "sysv", "unlinked", "shm"] {
            let address = program.address(name);
            let at = mappings.iter().position(|m| m.start == address).unwrap();
            let MappingKind::Object { key, origin } = &all[at] else {
                panic!("{name} is {:?}", all[at]);
            };
            let fits = match name {
                "shared" => *origin == Origin::SharedAnonymous,
                "memfd" => *origin == Origin::Memfd { name: b"a name".to_vec() },
                "sysv" => matches!(origin, Origin::SystemV { .. }),
                "unlinked" => matches!(origin, Origin::Deleted { .. }),
                _ => matches!(origin, Origin::Tmpfs { .. }),
            };
            assert!(fits, "{name} is {origin:?}");
            let mut object = SharedObject::open(program.pid, &mappings[at], 1).unwrap();
            assert_eq!(object.key().unwrap(), *key);
            let mut replica = Replica::default();
            object.round(&mut replica).unwrap();
            assert_eq!(replica.page(0)[0], 0x5a, "{name}");
        }
    }
}
