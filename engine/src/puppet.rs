//! A stopped thread that makes system calls for us.
//!
//! The code it runs and the calls it makes lie in an *arena*: a memfd mapped both here and there,
//! so a batch costs one round trip through the scheduler and no copying into foreign memory.
//! Before the arena exists, and to remove it again, calls are made one at a time at a `syscall`
//! instruction that the process has anyway, in its vdso.
//!
//! A program must outlive us. Between two calls or batches its registers and its mask are its own,
//! and in them it has a way back that does not need us: a signal frame for a batch ([`way_back`]),
//! a few bytes of code for a single call ([`detour`]), where there is room for them.

mod detour;
mod places;
mod steered;
mod way_back;

use self::places::zero_byte;
pub use self::places::{find_syscall, free_address};
pub use self::steered::Steered;
use self::steered::all_signals_but;
use self::way_back::WayBack;
use crate::arch::x86_64::blob;
use crate::batch::{Answers, Arg, Batch, Bytes, Entry};
use crate::error::{Error, OnObject as _};
use crate::sys::process::{pidfd_getfd, pidfd_open};
use crate::sys::ptrace::{self, Event};
use crate::sys::shared_bytes::SharedBytes;
use crate::tracee::OnOurDeath;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::rc::Rc;

pub const ARENA_BYTES: u64 = ARENA_LENGTH as u64;
const ARENA_LENGTH: usize = 1 << 20;
const FRAME_OFFSET: usize = 4096;
const ENTRIES_OFFSET: usize = FRAME_OFFSET + way_back::FRAME_BYTES_MAX;
const BYTES_OFFSET: usize = 256 << 10;
const ENTRIES_MAX: usize = (BYTES_OFFSET - ENTRIES_OFFSET) / blob::ENTRY_BYTES;
const BYTES_MAX: usize = ARENA_LENGTH - BYTES_OFFSET;

impl Batch {
    /// Whether it is time to run it: a batch has room for more than two thousand calls.
    pub fn is_full(&self) -> bool {
        self.entries.len() > ENTRIES_MAX / 2 || self.bytes.len() > BYTES_MAX / 2
    }
}

/// The memory through which a tree of processes is steered. Forked processes share it.
#[derive(Debug)]
struct Arena {
    memory: SharedBytes,
    on_our_death: OnOurDeath,
}

/// A process with the arena in its address space.
#[derive(Clone, Debug)]
pub struct Puppet {
    arena: Rc<Arena>,
    address: u64,
}

impl Puppet {
    /// Maps a new arena at `address`, which must be free; `syscall_at` is a `syscall`
    /// instruction of the process.
    pub fn open(
        steered: &Steered<'_>,
        address: u64,
        syscall_at: u64,
        on_our_death: OnOurDeath,
    ) -> Result<Self, Error> {
        let thread = steered.thread();
        let object = || thread.object();
        // The name is empty: the padding of the ELF identification in front of the code.
        let name = zero_byte(thread.pid(), syscall_at).on("find a zero byte in", object)?;
        let memfd = steered.call(
            syscall_at,
            "make memory to share with",
            libc::SYS_memfd_create,
            [name, libc::MFD_CLOEXEC.into(), 0, 0, 0, 0],
        )?;
        let opened = Self::share(steered, address, syscall_at, memfd)
            .map(|memory| Self { arena: Rc::new(Arena { memory, on_our_death }), address });
        steered.call(syscall_at, "close in", libc::SYS_close, [memfd, 0, 0, 0, 0, 0])?;
        opened
    }

    fn share(
        steered: &Steered<'_>,
        address: u64,
        syscall_at: u64,
        memfd: u64,
    ) -> Result<SharedBytes, Error> {
        let thread = steered.thread();
        let object = || thread.object();
        let process = pidfd_open(thread.pid()).on("open", object)?;
        let number = i32::try_from(memfd).unwrap_or(-1);
        let local = pidfd_getfd(process.as_fd(), number).on("share memory with", object)?;
        nix::unistd::ftruncate(&local, ARENA_BYTES.cast_signed())
            .on("share memory with", object)?;
        let memory =
            SharedBytes::map(local.as_fd(), ARENA_LENGTH).on("share memory with", object)?;
        let protection = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).cast_unsigned();
        let flags = (libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE).cast_unsigned();
        steered.call(
            syscall_at,
            "map shared memory into",
            libc::SYS_mmap,
            [address, ARENA_BYTES, protection.into(), flags.into(), memfd, 0],
        )?;
        memory.write(0, &blob::CODE);
        Ok(memory)
    }

    /// Where the arena lies in the process.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Where a `syscall` instruction stands inside the arena.
    pub fn syscall_at(&self) -> u64 {
        self.address + blob::SYSCALL_OFFSET
    }

    /// The same arena once more at another address, after `moved_to` was mapped there.
    pub fn at(&self, address: u64) -> Self {
        Self { arena: Rc::clone(&self.arena), address }
    }

    /// Makes the thread do the whole batch. A call that had to succeed and failed is the error.
    pub fn run(&self, steered: &Steered<'_>, batch: &Batch) -> Result<Answers, Error> {
        let answers = self.run_unchecked(steered, batch)?;
        answers.check(batch)?;
        Ok(answers)
    }

    /// A batch may have more calls than there is room for; its bytes must fit at once.
    fn run_unchecked(&self, steered: &Steered<'_>, batch: &Batch) -> Result<Answers, Error> {
        let mut results = Vec::with_capacity(batch.entries.len());
        if batch.bytes.len() > BYTES_MAX {
            let object = steered.thread().object();
            return Err(Error::invalid("steer", object, "a batch has too many bytes"));
        }
        self.put_bytes(batch);
        let ends = self.prepare_end(steered)?;
        while results.len() < batch.entries.len() {
            let end = batch.entries.len().min(results.len() + ENTRIES_MAX);
            self.walk(steered, batch, results.len()..end, ends, &mut results)?;
        }
        // Other threads use the arena next, and the frame in it with it.
        if ends.is_some() {
            steered.put_back()?;
        }
        Ok(Answers { results, bytes: self.arena.memory.read(BYTES_OFFSET, batch.bytes.len()) })
    }

    fn put_bytes(&self, batch: &Batch) {
        self.arena.memory.write(BYTES_OFFSET, &batch.bytes);
        for &(at, to) in &batch.pointers {
            let address = self.bytes_address(to).to_ne_bytes();
            self.arena.memory.write(BYTES_OFFSET + at, &address);
        }
    }

    /// How a walk ends: `None` in a trap, as a stub's does. A program gets its way back.
    fn prepare_end(&self, steered: &Steered<'_>) -> Result<Option<blob::WayBack>, Error> {
        if self.arena.on_our_death == OnOurDeath::Dies {
            return Ok(None);
        }
        let frame = self.address + FRAME_OFFSET as u64;
        if steered.way_back.get().is_none() {
            let made = WayBack::make(steered, frame)?;
            steered.way_back.set(made).expect("it was not set, and nobody else is here");
        }
        let way_back = steered.way_back.get().expect("it was just set");
        way_back.frame().write(|at, bytes| self.arena.memory.write(FRAME_OFFSET + at, bytes));
        Ok(Some(blob::WayBack { signal: way_back.signal(), frame }))
    }

    fn walk(
        &self,
        steered: &Steered<'_>,
        batch: &Batch,
        range: Range<usize>,
        ends: Option<blob::WayBack>,
        results: &mut Vec<i64>,
    ) -> Result<(), Error> {
        let thread = steered.thread();
        let entries = self.encode(batch, range.clone(), results);
        self.arena.memory.write(ENTRIES_OFFSET, &entries);
        self.set_out(steered, range.len(), ends)?;
        let first = self.address + ENTRIES_OFFSET as u64;
        thread
            .run_to(|tid| ptrace::cont(tid, 0), self.end_of_walk(steered, ends), steered.limit)
            .map_err(|error| unended_in(steered, error, first, &batch.entries[range]))?;
        let walked = self.arena.memory.read(ENTRIES_OFFSET, entries.len());
        results.extend(walked.chunks_exact(blob::ENTRY_BYTES).map(|entry| {
            let result = &entry[blob::RESULT_OFFSET..blob::RESULT_OFFSET + 8];
            i64::from_ne_bytes(result.try_into().expect("eight bytes"))
        }));
        Ok(())
    }

    /// Everything that the thread needs is in the arena: with its first step it goes all the way.
    fn set_out(
        &self,
        steered: &Steered<'_>,
        count: usize,
        ends: Option<blob::WayBack>,
    ) -> Result<(), Error> {
        let (code, first) = (self.address, self.address + ENTRIES_OFFSET as u64);
        let registers = blob::walking(steered.registers(), code, first, count as u64, ends);
        let signal = ends.map_or(libc::SIGTRAP, |way_back| way_back.signal);
        steered.take(&registers, all_signals_but(signal))
    }

    /// A program's own signal of that number may come from outside at any time, but then it does
    /// not stand where the code has just sent it.
    fn end_of_walk(
        &self,
        steered: &Steered<'_>,
        ends: Option<blob::WayBack>,
    ) -> impl Fn(Event) -> bool {
        let behind = self.address + blob::WAY_BACK_OFFSET;
        let tid = steered.thread().tid();
        move |event| match ends {
            None => event == Event::Signal(libc::SIGTRAP),
            Some(way_back) => {
                event == Event::Signal(way_back.signal)
                    && ptrace::registers(tid).is_ok_and(|registers| registers.rip == behind)
            }
        }
    }

    /// The entries of `range`; `results` are those of all entries before it.
    fn encode(&self, batch: &Batch, range: Range<usize>, results: &[i64]) -> Vec<u8> {
        let from = range.start;
        let mut entries = vec![0_u8; range.len() * blob::ENTRY_BYTES];
        let mut put = |offset: usize, word: u64| {
            entries[offset..offset + 8].copy_from_slice(&word.to_ne_bytes());
        };
        let mut uses = vec![0_usize; range.len()];
        for (index, entry) in batch.entries[range].iter().enumerate() {
            let start = index * blob::ENTRY_BYTES;
            put(start, entry.number.cast_unsigned());
            for (position, arg) in entry.args.iter().enumerate() {
                let at = start + blob::ARGUMENT_OFFSET + position * 8;
                match *arg {
                    Arg::Value(value) => put(at, value),
                    Arg::Bytes(Bytes { offset, .. }) => put(at, self.bytes_address(offset)),
                    Arg::Result(call) if call.0 < from => put(at, results[call.0].cast_unsigned()),
                    Arg::Result(call) => {
                        let earlier = call.0 - from;
                        assert!(earlier < index, "a result is used after its call");
                        let store = blob::RESULT_OFFSET + 8 + uses[earlier] * 8;
                        assert!(store < blob::ENTRY_BYTES, "a result is used at most twice");
                        uses[earlier] += 1;
                        let address = self.address + (ENTRIES_OFFSET + at) as u64;
                        put(earlier * blob::ENTRY_BYTES + store, address);
                    }
                }
            }
        }
        entries
    }

    fn bytes_address(&self, offset: usize) -> u64 {
        self.address + (BYTES_OFFSET + offset) as u64
    }

    /// Unmaps the arena, by a `syscall` instruction outside of it.
    pub fn close(self, steered: &Steered<'_>, syscall_at: u64) -> Result<(), Error> {
        let args = [self.address, ARENA_BYTES, 0, 0, 0, 0];
        steered.call(syscall_at, "unmap our memory from", libc::SYS_munmap, args).map(drop)
    }
}

/// The code holds the address of the entry that it is at in rbx.
fn unended_in(steered: &Steered<'_>, error: Error, first: u64, entries: &[Entry]) -> Error {
    let at = steered.thread().registers().map_or(0, |registers| registers.rbx);
    let index = usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX) / blob::ENTRY_BYTES;
    let Some(entry) = entries.get(index) else { return error };
    let (action, object) = match entry.action {
        Some(action) => (action, entry.object.clone()),
        None => ("steer", steered.thread().object()),
    };
    steered.unended(error, entry.number, action, object)
}

#[cfg(test)]
mod our_death;

#[cfg(test)]
mod tests;
