//! Bringing pages of a process into a sink.
//!
//! `process_vm_readv` in batches of a mebibyte (8 GB/s); `/proc/PID/mem` (5 GB/s) where the process
//! itself may not read (PROT_NONE), which the first refuses, and for pages that are shared
//! copy-on-write: process_vm_readv pins what it reads, and since Linux 5.19 the kernel gives the
//! process a copy of its own of a page that is to be pinned. Read that way, a server and its
//! hundred forks would need a hundred times their memory, and not only as long as they are read.

use super::{DATA_BYTES_MAX, PAGE_BYTES, PageRun, PageSet, PageSink, Run};
use crate::error::{Error, Object, OnObject as _};
use crate::sys::pagemap::Pagemap;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;

const BUFFER_BYTES: usize = 1 << 20;
/// UIO_MAXIOV
const PIECES_MAX: usize = 1024;
const PAGE: usize = 4096;

/// What the process does while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum While {
    /// Pages may vanish at any moment; those are left out.
    Running,
    /// Every page must be there still.
    Frozen,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadPages {
    pub data_pages: u64,
    /// Known before or found by looking.
    pub zero_pages: u64,
    /// Asked for, and gone when we came.
    pub vanished: PageSet,
}

/// Whether pages are shared with another process, as fork(2) left them, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// It may fork at any moment, also while it is read. So long runs are looked up all the same,
    /// which costs little; scattered pages were written a moment ago, and it would cost as much as
    /// reading them.
    OfItsOwn,
    MayBeShared,
}

/// Pieces in a batch that are always looked up.
const FEW_PIECES: usize = 16;

/// Reads one process. Keeps its buffer, so keep it.
#[derive(Debug)]
pub struct Reader {
    pid: i32,
    pages: Pages,
    buffer: Vec<u8>,
}

impl Reader {
    pub fn new(pid: i32, pages: Pages) -> Self {
        Self { pid, pages, buffer: vec![0; BUFFER_BYTES] }
    }

    pub fn expect(&mut self, pages: Pages) {
        self.pages = pages;
    }

    /// Sends what is in `runs`, in that order.
    pub fn read(
        &mut self,
        space: u32,
        runs: impl IntoIterator<Item = PageRun>,
        during: While,
        sink: &mut dyn PageSink,
    ) -> Result<ReadPages, Error> {
        let mut sending =
            Sending { pid: self.pid, space, sink, zeros: None, sent: ReadPages::default() };
        let mut batch = Batch::default();
        for run in runs {
            if run.zero {
                sending.zero(run.into())?;
                continue;
            }
            let mut rest = Run::from(run);
            while rest.pages > 0 {
                batch.take(&mut rest);
                if batch.is_full() {
                    self.send(&mut batch, during, &mut sending)?;
                }
            }
        }
        self.send(&mut batch, during, &mut sending)?;
        sending.finish()
    }

    fn send(
        &mut self,
        batch: &mut Batch,
        during: While,
        sending: &mut Sending<'_>,
    ) -> Result<(), Error> {
        let pieces = std::mem::take(batch).pieces;
        for piece in self.fill(pieces)? {
            let run = piece.run();
            if piece.is_there {
                sending
                    .pages(run.address, &self.buffer[piece.offset..piece.offset + piece.bytes])?;
            } else if during == While::Running {
                sending.sent.vanished.insert(run.address, run.pages);
            } else {
                let object = Object::Mapping { pid: self.pid, start: run.address, end: run.end() };
                return Err(Error::invalid(
                    "read",
                    object,
                    "pages are gone though it stands still",
                ));
            }
        }
        Ok(())
    }

    /// Fills the buffer. The kernel stops at the first page that cannot be read; everything from
    /// there on takes the slow way.
    fn fill(&mut self, pieces: Vec<Piece>) -> Result<Vec<Piece>, Error> {
        let remote: Vec<_> = pieces.iter().map(Piece::remote).collect();
        let wanted = pieces.last().map_or(0, |last| last.offset + last.bytes);
        if wanted == 0 {
            return Ok(pieces);
        }
        let looks = self.pages == Pages::MayBeShared || pieces.len() <= FEW_PIECES;
        if looks && self.has_shared(&pieces)? {
            return self.fill_slowly(pieces, 0);
        }
        let local = &mut [IoSliceMut::new(&mut self.buffer[..wanted])];
        let filled = match process_vm_readv(Pid::from_raw(self.pid), local, &remote) {
            Ok(filled) => filled / PAGE * PAGE,
            Err(nix::Error::EFAULT) => 0,
            Err(error) => {
                return Err(error).on("read the memory of", || Object::Process { pid: self.pid });
            }
        };
        if filled == wanted { Ok(pieces) } else { self.fill_slowly(pieces, filled) }
    }

    fn has_shared(&self, pieces: &[Piece]) -> Result<bool, Error> {
        let object = || Object::Process { pid: self.pid };
        let pagemap = Pagemap::open(self.pid).on("open the pagemap of", object)?;
        let mut has_shared = false;
        for run in pieces.iter().map(Piece::run) {
            pagemap
                .entries(run.address, run.end(), &mut |_, entry| {
                    has_shared |= entry.is_present() && !entry.is_exclusive();
                })
                .on("read the pagemap of", object)?;
            if has_shared {
                break;
            }
        }
        Ok(has_shared)
    }

    fn fill_slowly(&mut self, pieces: Vec<Piece>, filled: usize) -> Result<Vec<Piece>, Error> {
        let memory = open_memory(self.pid)?;
        let mut done = Vec::new();
        for piece in pieces {
            let (before, rest) = piece.split_at(filled);
            done.extend(before);
            let Some(mut rest) = rest else { continue };
            while rest.bytes > 0 {
                let into = &mut self.buffer[rest.offset..rest.offset + rest.bytes];
                let count = memory.read_at(into, rest.address).unwrap_or(0) / PAGE * PAGE;
                done.extend(rest.cut(count, true));
                if count == 0 {
                    done.extend(rest.cut(PAGE, false));
                }
            }
        }
        Ok(done)
    }
}

/// Makes the kernel look at each page, and bring in what is swapped. What is unmapped meanwhile
/// is no failure.
pub(super) fn touch(pid: i32, pages: &PageSet) -> Result<(), Error> {
    if pages.is_empty() {
        return Ok(());
    }
    let memory = open_memory(pid)?;
    for run in pages.runs() {
        for address in (run.address..run.end()).step_by(PAGE) {
            let _unmapped = memory.read_at(&mut [0], address);
        }
    }
    Ok(())
}

fn open_memory(pid: i32) -> Result<File, Error> {
    File::open(format!("/proc/{pid}/mem")).on("open the memory of", || Object::Process { pid })
}

/// Pages in a row, and their place in the buffer.
#[derive(Clone, Copy, Debug)]
struct Piece {
    address: u64,
    offset: usize,
    bytes: usize,
    is_there: bool,
}

impl Piece {
    fn run(&self) -> Run {
        Run { address: self.address, pages: (self.bytes / PAGE) as u64 }
    }

    fn remote(&self) -> RemoteIoVec {
        let base = usize::try_from(self.address).expect("64-bit addresses");
        RemoteIoVec { base, len: self.bytes }
    }

    /// Takes so many bytes off the front.
    fn cut(&mut self, bytes: usize, is_there: bool) -> Option<Self> {
        let front = Self { bytes, is_there, ..*self };
        self.address += bytes as u64;
        self.offset += bytes;
        self.bytes -= bytes;
        (bytes > 0).then_some(front)
    }

    /// What lies before this offset of the buffer, and the rest.
    fn split_at(mut self, offset: usize) -> (Option<Self>, Option<Self>) {
        let before = offset.saturating_sub(self.offset).min(self.bytes);
        let front = self.cut(before, true);
        (front, (self.bytes > 0).then_some(self))
    }
}

#[derive(Debug, Default)]
struct Batch {
    pieces: Vec<Piece>,
    bytes: usize,
}

impl Batch {
    /// Moves as much as there is room for.
    fn take(&mut self, run: &mut Run) {
        let room = BUFFER_BYTES - self.bytes;
        let bytes = usize::try_from(run.bytes()).unwrap_or(usize::MAX).min(room);
        self.pieces.push(Piece { address: run.address, offset: self.bytes, bytes, is_there: true });
        self.bytes += bytes;
        run.address += bytes as u64;
        run.pages -= (bytes / PAGE) as u64;
    }

    fn is_full(&self) -> bool {
        self.bytes == BUFFER_BYTES || self.pieces.len() == PIECES_MAX
    }
}

/// Sorts pages into data and zeros, and counts them.
struct Sending<'a> {
    pid: i32,
    space: u32,
    sink: &'a mut dyn PageSink,
    /// Zeros that are not sent yet, because more may follow.
    zeros: Option<Run>,
    sent: ReadPages,
}

impl Sending<'_> {
    fn pages(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        for (alike, address, bytes) in alike(address, bytes) {
            let pages = (bytes.len() / PAGE) as u64;
            match alike {
                Alike::Zero => self.zero(Run { address, pages })?,
                Alike::Data => self.data(address, bytes)?,
            }
        }
        Ok(())
    }

    fn data(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.flush()?;
        let result = send_data(self.sink, self.space, address, bytes);
        self.sent.data_pages += (bytes.len() / PAGE) as u64;
        self.named(result)
    }

    fn zero(&mut self, run: Run) -> Result<(), Error> {
        self.sent.zero_pages += run.pages;
        match &mut self.zeros {
            Some(zeros) if zeros.end() == run.address => zeros.pages += run.pages,
            _ => {
                self.flush()?;
                self.zeros = Some(run);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let Some(run) = self.zeros.take() else { return Ok(()) };
        let result = self.sink.zero(self.space, run.address, run.pages);
        self.named(result)
    }

    fn finish(mut self) -> Result<ReadPages, Error> {
        self.flush()?;
        Ok(self.sent)
    }

    fn named(&self, result: io::Result<()>) -> Result<(), Error> {
        result.on("send pages of", || Object::Process { pid: self.pid })
    }
}

pub(super) fn send_data(
    sink: &mut dyn PageSink,
    space: u32,
    address: u64,
    bytes: &[u8],
) -> io::Result<()> {
    for (index, part) in bytes.chunks(DATA_BYTES_MAX).enumerate() {
        sink.data(space, address + (index * DATA_BYTES_MAX) as u64, part)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alike {
    Zero,
    Data,
}

/// Pages in a row that are all zeros, or none of them.
fn alike(address: u64, bytes: &[u8]) -> impl Iterator<Item = (Alike, u64, &[u8])> {
    let kind = |page: &[u8]| if is_zero(page) { Alike::Zero } else { Alike::Data };
    let mut rest = bytes;
    let mut at = address;
    std::iter::from_fn(move || {
        let first = kind(rest.get(..PAGE)?);
        let more = rest[PAGE..].chunks_exact(PAGE).take_while(|page| kind(page) == first).count();
        let (run, after) = rest.split_at((1 + more) * PAGE);
        let found = (first, at, run);
        at += run.len() as u64;
        rest = after;
        Some(found)
    })
}

/// Most pages differ in their first word, and a page of zeros is read at the speed of memory.
pub fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

const _: () = assert!(PAGE as u64 == PAGE_BYTES && BUFFER_BYTES.is_multiple_of(DATA_BYTES_MAX));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::test_program::{Program, Replica};

    #[test]
    fn pages_are_sorted_into_zeros_and_data() {
        let mut bytes = vec![0; 5 * PAGE];
        bytes[2 * PAGE] = 1;
        bytes[4 * PAGE - 1] = 1;
        let found: Vec<_> =
            alike(0x10000, &bytes).map(|(alike, at, run)| (alike, at, run.len() / PAGE)).collect();
        let expected =
            [(Alike::Zero, 0x10000, 2), (Alike::Data, 0x12000, 2), (Alike::Zero, 0x14000, 1)];
        assert_eq!(found, expected);
    }

    fn runs(address: u64, pages: u64) -> [PageRun; 1] {
        [PageRun { address, pages, zero: false }]
    }

    #[test]
    fn memory_that_the_process_may_not_read_is_read() {
        let program = Program::start("regions");
        let address = program.address("none");
        let mut replica = Replica::default();
        let read = Reader::new(program.pid, Pages::OfItsOwn)
            .read(0, runs(address, 4), While::Frozen, &mut replica)
            .unwrap();
        assert_eq!((read.data_pages, read.zero_pages), (2, 2), "only two were written");
        assert_eq!(replica.page(address)[0], 0x5a);
    }

    #[test]
    fn a_hole_is_left_out_while_it_runs_and_an_error_while_it_stands() {
        let program = Program::start("regions");
        let address = program.address("hole"); // written, unmapped, written
        let mut replica = Replica::default();
        let mut reader = Reader::new(program.pid, Pages::OfItsOwn);
        let read = reader.read(0, runs(address, 3), While::Running, &mut replica).unwrap();
        assert_eq!(read.data_pages, 2);
        assert_eq!(
            read.vanished.runs().collect::<Vec<_>>(),
            [Run { address: address + PAGE_BYTES, pages: 1 }]
        );
        let error = reader.read(0, runs(address, 3), While::Frozen, &mut replica).unwrap_err();
        assert!(matches!(error.object, Object::Mapping { .. }));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_of_that_name() {
        let program = Program::start("regions");
        let (pid, address) = (program.pid, program.address("hole"));
        drop(program);
        let error = Reader::new(pid, Pages::OfItsOwn)
            .read(0, runs(address, 1), While::Running, &mut Replica::default())
            .unwrap_err();
        assert!(error.is_gone(), "{error:?}");
    }

    #[test]
    fn no_piece_of_data_is_longer_than_the_sink_takes() {
        let program = Program::start("regions");
        let address = program.address("large");
        let mut replica = Replica::default();
        let read = Reader::new(program.pid, Pages::OfItsOwn)
            .read(0, runs(address, 1024), While::Frozen, &mut replica)
            .unwrap();
        assert_eq!(read.data_pages, 1024);
        assert!(replica.longest_data <= DATA_BYTES_MAX);
        assert_eq!(replica.pages(), 1024);
    }
}
