//! A stopped thread that makes system calls for us.
//!
//! The code it runs and the calls it makes lie in an *arena*: a memfd mapped both here and there,
//! so a batch costs one round trip through the scheduler and no copying into foreign memory.
//! Before the arena exists, and to remove it again, calls are made one at a time at a `syscall`
//! instruction that the process has anyway, in its vdso.

use crate::arch::x86_64::blob;
use crate::batch::{Answers, Arg, Batch, Bytes};
use crate::error::{Error, Object, OnObject as _};
use crate::sys::process::{pidfd_getfd, pidfd_open};
use crate::sys::ptrace::{self, Event};
use crate::sys::shared_bytes::SharedBytes;
use crate::tracee::{Registers, Stopped};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

pub const ARENA_BYTES: u64 = ARENA_LENGTH as u64;
const ARENA_LENGTH: usize = 1 << 20;
const ENTRIES_OFFSET: usize = 4096;
const BYTES_OFFSET: usize = 256 << 10;
const ENTRIES_MAX: usize = (BYTES_OFFSET - ENTRIES_OFFSET) / blob::ENTRY_BYTES;
const BYTES_MAX: usize = ARENA_LENGTH - BYTES_OFFSET;

/// Every signal but SIGTRAP: forcing a blocked SIGTRAP on a thread resets its action.
const MASK_WHILE_STEERED: u64 = !(1 << (libc::SIGTRAP - 1));

impl Batch {
    /// Whether it is time to run it: a batch has room for about three thousand calls.
    pub fn is_full(&self) -> bool {
        self.entries.len() > ENTRIES_MAX / 2 || self.bytes.len() > BYTES_MAX / 2
    }
}

/// A thread under our control: what it was doing is put aside, and comes back with `end`.
#[derive(Debug)]
pub struct Steered<'a> {
    thread: &'a Stopped,
    registers: Registers,
    signal_mask: u64,
}

impl<'a> Steered<'a> {
    pub fn begin(thread: &'a Stopped) -> Result<Self, Error> {
        let registers = thread.registers()?;
        let signal_mask = thread.signal_mask()?;
        thread.set_signal_mask(MASK_WHILE_STEERED)?;
        Ok(Self { thread, registers, signal_mask })
    }

    pub fn thread(&self) -> &Stopped {
        self.thread
    }

    /// What the thread was doing.
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    pub fn signal_mask(&self) -> u64 {
        self.signal_mask
    }

    /// Gives the thread its own registers and mask back.
    pub fn end(self) -> Result<(), Error> {
        let ended = self.put_back();
        std::mem::forget(self);
        ended
    }

    fn put_back(&self) -> Result<(), Error> {
        self.thread.set_registers(&self.registers)?;
        self.thread.set_signal_mask(self.signal_mask)
    }

    /// One system call at the `syscall` instruction at `at`.
    pub fn call(
        &self,
        at: u64,
        action: &'static str,
        number: i64,
        args: [u64; 6],
    ) -> Result<u64, Error> {
        let thread = self.thread;
        thread.set_registers(&blob::calling(&self.registers, at, number, args))?;
        // Entry, then exit. Stepping would end in a forced SIGTRAP, these stops do not.
        for _ in 0..2 {
            thread.run_to(ptrace::cont_to_syscall, |event| event == Event::Syscall)?;
        }
        let raw = thread.registers()?.rax.cast_signed();
        let result = match i32::try_from(-raw) {
            Ok(errno) if (1..4096).contains(&errno) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(raw.cast_unsigned()),
        };
        result.on(action, || thread.object())
    }
}

/// An error on the way must not leave a program with our registers.
impl Drop for Steered<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            tracing::warn!(%error, "a thread did not get its registers back");
        }
    }
}

/// The memory through which a tree of processes is steered. Forked processes share it.
#[derive(Debug)]
struct Arena {
    memory: SharedBytes,
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
    pub fn open(steered: &Steered<'_>, address: u64, syscall_at: u64) -> Result<Self, Error> {
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
        let opened = Self::share(steered, address, syscall_at, memfd);
        steered.call(syscall_at, "close in", libc::SYS_close, [memfd, 0, 0, 0, 0, 0])?;
        opened
    }

    fn share(
        steered: &Steered<'_>,
        address: u64,
        syscall_at: u64,
        memfd: u64,
    ) -> Result<Self, Error> {
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
        Ok(Self { arena: Rc::new(Arena { memory }), address })
    }

    /// Where the arena lies in the process.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Where a `syscall` instruction stands inside the arena.
    pub fn syscall_at(&self) -> u64 {
        self.address + blob::SYSCALL_OFFSET
    }

    /// Puts bytes where the process can read them, until the next batch; says where.
    pub(crate) fn place(&self, bytes: &[u8]) -> u64 {
        self.arena.memory.write(BYTES_OFFSET, bytes);
        self.bytes_address(0)
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
        while results.len() < batch.entries.len() {
            let end = batch.entries.len().min(results.len() + ENTRIES_MAX);
            self.walk(steered, batch, results.len()..end, &mut results)?;
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

    fn walk(
        &self,
        steered: &Steered<'_>,
        batch: &Batch,
        range: Range<usize>,
        results: &mut Vec<i64>,
    ) -> Result<(), Error> {
        let thread = steered.thread();
        let entries = self.encode(batch, range, results);
        self.arena.memory.write(ENTRIES_OFFSET, &entries);
        let first = self.address + ENTRIES_OFFSET as u64;
        let count = (entries.len() / blob::ENTRY_BYTES) as u64;
        thread.set_registers(&blob::walking(steered.registers(), self.address, first, count))?;
        thread.run_to(|tid| ptrace::cont(tid, 0), |event| event == Event::Signal(libc::SIGTRAP))?;
        let walked = self.arena.memory.read(ENTRIES_OFFSET, entries.len());
        results.extend(walked.chunks_exact(blob::ENTRY_BYTES).map(|entry| {
            let result = &entry[blob::RESULT_OFFSET..blob::RESULT_OFFSET + 8];
            i64::from_ne_bytes(result.try_into().expect("eight bytes"))
        }));
        Ok(())
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

/// A `syscall` instruction of a process: in its vdso, or anywhere in its code.
pub fn find_syscall(pid: i32) -> Result<u64, Error> {
    let object = || Object::Process { pid };
    let maps =
        fs::read_to_string(format!("/proc/{pid}/maps")).on("read the mappings of", object)?;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).on("open the memory of", object)?;
    let ranges = maps.lines().filter_map(executable);
    let (vdso, others): (Vec<_>, Vec<_>) = ranges.partition(|range| range.2);
    for (start, end, _) in vdso.into_iter().chain(others) {
        if let Some(at) = search(&memory, start, end) {
            return Ok(at);
        }
    }
    Err(Error::invalid("find a system call instruction in", object(), "there is none"))
}

/// Start, end, and whether it is the vdso, of a line of `maps` that can be executed.
fn executable(line: &str) -> Option<(u64, u64, bool)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let executable = fields.next()?.as_bytes().get(2) == Some(&b'x');
    let vdso = line.ends_with("[vdso]");
    let bounds = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    (executable && !line.ends_with("[vsyscall]")).then_some((bounds.0, bounds.1, vdso))
}

fn search(memory: &fs::File, start: u64, end: u64) -> Option<u64> {
    let mut buffer = vec![0; usize::try_from(end - start).ok()?.min(1 << 20)];
    let read = memory.read_at(&mut buffer, start).ok()?;
    let at = buffer[..read].windows(2).position(|pair| pair == blob::SYSCALL)?;
    Some(start + at as u64)
}

/// The address of some zero byte near `near`, which serves as an empty string.
fn zero_byte(pid: i32, near: u64) -> io::Result<u64> {
    let page = near & !4095;
    let mut bytes = vec![0; 4096];
    let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    memory.read_exact_at(&mut bytes, page)?;
    let at = bytes.iter().position(|&byte| byte == 0);
    at.map(|at| page + at as u64).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Addresses where the arena is put, first free first: below the usual start of programs, where
/// neither the kernel nor a C library ever maps anything by itself.
pub fn free_address(taken: &[(u64, u64)]) -> Option<u64> {
    let low = (0x2_0000..0x30_0000).step_by(0x2_0000);
    let high = (0x10_0000_0000..0x7f00_0000_0000_u64).step_by(0x10_0000_0000);
    low.chain(high).find(|&start| {
        let end = start + ARENA_BYTES;
        taken.iter().all(|&(from, to)| end <= from || to <= start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::tracee::{OnOurDeath, Outcome, Running};
    use std::process::{Child, Command};

    fn stopped_child() -> (Child, Stopped) {
        let child = Command::new("sleep").arg("30").spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let pid = i32::try_from(child.id()).unwrap();
        let Outcome::Alive(running) = Running::seize(pid, pid, OnOurDeath::Runs).unwrap() else {
            panic!("sleep is alive")
        };
        let Outcome::Alive(stopped) = running.stop().unwrap() else { panic!("sleep is alive") };
        (child, stopped)
    }

    fn count_descriptors(pid: i32) -> usize {
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    fn with_puppet(test: impl FnOnce(&Puppet, &Steered<'_>)) {
        let (mut child, stopped) = stopped_child();
        let syscall_at = find_syscall(stopped.pid()).unwrap();
        let before = fs::read_to_string(format!("/proc/{}/maps", stopped.pid())).unwrap();
        let descriptors = count_descriptors(stopped.pid());
        let steered = Steered::begin(&stopped).unwrap();
        let puppet = Puppet::open(&steered, free_address(&[]).unwrap(), syscall_at).unwrap();
        test(&puppet, &steered);
        puppet.close(&steered, syscall_at).unwrap();
        steered.end().unwrap();
        let after = fs::read_to_string(format!("/proc/{}/maps", stopped.pid())).unwrap();
        assert_eq!(before, after);
        assert_eq!(descriptors, count_descriptors(stopped.pid()));
        stopped.release().unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it sleeps on");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn makes_calls_in_the_name_of_the_process_and_leaves_no_trace() {
        with_puppet(|puppet, steered| {
            let mut batch = Batch::new();
            let pid = batch.try_call(libc::SYS_getpid, args![]);
            let room = batch.room(32);
            let name = batch.try_call(libc::SYS_prctl, args![libc::PR_GET_NAME, room]);
            let answers = puppet.run(steered, &batch).unwrap();
            assert_eq!(answers.raw(pid), i64::from(steered.thread().pid()));
            assert_eq!(answers.raw(name), 0);
            assert!(answers.bytes(room).starts_with(b"sleep\0"));
        });
    }

    #[test]
    fn a_result_is_the_argument_of_a_later_call() {
        with_puppet(|puppet, steered| {
            let mut batch = Batch::new();
            let object = Object::Host;
            let path = batch.string("/dev/null");
            let args = args![libc::AT_FDCWD, path, libc::O_RDONLY, 0];
            let fd = batch.call("open", &object, libc::SYS_openat, args);
            let up = args![fd, libc::F_DUPFD, 100];
            let copy = batch.call("duplicate", &object, libc::SYS_fcntl, up);
            batch.call("close", &object, libc::SYS_close, args![fd]);
            batch.call("close", &object, libc::SYS_close, args![copy]);
            let answers = puppet.run(steered, &batch).unwrap();
            assert!(answers.raw(fd) >= 3);
            assert_eq!(answers.raw(copy), 100);
        });
    }

    #[test]
    fn a_batch_may_be_longer_than_the_arena() {
        with_puppet(|puppet, steered| {
            let mut batch = Batch::new();
            let pid = batch.try_call(libc::SYS_getpid, args![]);
            let calls: Vec<_> =
                (0..3 * ENTRIES_MAX).map(|_| batch.try_call(libc::SYS_getppid, args![])).collect();
            let last = batch.try_call(libc::SYS_kill, args![pid, 0]);
            let answers = puppet.run(steered, &batch).unwrap();
            let us = i64::from(std::process::id());
            assert!(calls.iter().all(|&call| answers.raw(call) == us));
            assert_eq!(answers.raw(last), 0);
        });
    }

    #[test]
    fn a_call_that_must_succeed_names_what_failed() {
        with_puppet(|puppet, steered| {
            let mut batch = Batch::new();
            let object = Object::Fd { pid: 1, fd: 77, kind: "file" };
            batch.call("close", &object, libc::SYS_close, args![77]);
            let error = puppet.run(steered, &batch).unwrap_err();
            assert_eq!(error.to_string(), "close file at fd 77 of process 1");
            assert_eq!(error.source.raw_os_error(), Some(libc::EBADF));
        });
    }
}
