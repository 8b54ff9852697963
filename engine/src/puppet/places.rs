//! Places in a process that has nothing of ours yet: an instruction to make calls with, and room.

use super::ARENA_BYTES;
use crate::arch::x86_64::blob;
use crate::error::{Error, Object, OnObject as _};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;

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
pub(super) fn zero_byte(pid: i32, near: u64) -> io::Result<u64> {
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
