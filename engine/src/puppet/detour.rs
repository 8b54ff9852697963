//! The way back from a single call, before there is an arena: a few bytes of code in the vdso,
//! behind its last section, where nothing of it stands.

use super::Steered;
use super::way_back::queued;
use crate::arch::x86_64::{detour, interrupted, vdso};
use crate::error::{Error, OnObject as _};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

const PAGE: u64 = PAGE_BYTES as u64;
const PAGE_BYTES: usize = 4096;
/// So many pages before the instruction a vdso may begin.
const VDSO_PAGES: u64 = 4;
/// DT_SONAME of every vdso of x86-64: vdso(7).
const NAME: &[u8] = b"linux-vdso.so.1";

/// Code that lies in a process. What we die with stays there, and nobody comes by.
#[derive(Debug)]
pub(super) struct Detour {
    memory: File,
    at: u64,
}

impl Detour {
    /// `None` when there is no room: the calls are not made in a vdso, or it is full. Then a call
    /// is made where `syscall_at` is, without a way back.
    pub(super) fn lay(steered: &Steered<'_>, syscall_at: u64) -> Result<Option<Self>, Error> {
        let (thread, mask) = (steered.thread(), steered.signal_mask());
        let object = || thread.object();
        let path = format!("/proc/{}/mem", thread.pid());
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .on("open the memory of", object)?;
        let Some(at) = room_in_vdso(&memory, syscall_at) else { return Ok(None) };
        let is_signal_due = queued(steered)? & !mask != 0;
        let registers = interrupted::by_signal_return(steered.registers(), is_signal_due);
        let laid = memory.write_all_at(&detour::code(&registers, mask), at);
        // A kernel may forbid it (proc_mem.force_override in kernel-parameters).
        Ok(laid.is_ok().then_some(Self { memory, at }))
    }

    pub(super) fn syscall_at(&self) -> u64 {
        self.at
    }

    /// The thread has its own registers again.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.memory.write_all_at(&[0; detour::BYTES], self.at)
    }
}

/// The last room that is free. What somebody died with is left alone: a signal handler may still
/// return into it.
fn room_in_vdso(memory: &File, syscall_at: u64) -> Option<u64> {
    let (start, length) = vdso_around(memory, syscall_at)?;
    let end = start.checked_add(length.checked_next_multiple_of(PAGE)?)?;
    let rooms = (1..).map(|count| end.saturating_sub(count * detour::BYTES as u64));
    let mut rooms = rooms.take_while(|at| *at >= start + length);
    rooms.find(|at| {
        let mut room = [0; detour::BYTES];
        memory.read_exact_at(&mut room, *at).is_ok() && room == [0; detour::BYTES]
    })
}

/// Where the vdso begins that has this instruction, and its length. It can be executed.
fn vdso_around(memory: &File, syscall_at: u64) -> Option<(u64, u64)> {
    let last = syscall_at / PAGE * PAGE;
    let starts = (0..VDSO_PAGES).map_while(|pages| last.checked_sub(pages * PAGE));
    starts.into_iter().find_map(|start| {
        let mut page = [0; PAGE_BYTES];
        memory.read_exact_at(&mut page, start).ok()?;
        let length = vdso::length(&page)?;
        let is_vdso = page.windows(NAME.len()).any(|bytes| bytes == NAME);
        (is_vdso && (start..start.checked_add(length)?).contains(&syscall_at))
            .then_some((start, length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asleep::Asleep;
    use crate::puppet::find_syscall;

    #[test]
    fn there_is_room_in_our_own_vdso_and_nowhere_else() {
        let memory = File::open("/proc/self/mem").unwrap();
        let syscall_at = find_syscall(std::process::id().cast_signed()).unwrap();
        let room = room_in_vdso(&memory, syscall_at).expect("the kernel's has an end");
        assert_eq!(room % PAGE, PAGE - detour::BYTES as u64);
        assert_eq!(room_in_vdso(&memory, 0x1000), None);
        let own_code = there_is_room_in_our_own_vdso_and_nowhere_else as fn() as usize as u64;
        assert_eq!(room_in_vdso(&memory, own_code), None);
    }

    #[test]
    fn what_somebody_died_with_is_left_alone() {
        let program = Asleep::start();
        let pid = program.pid();
        let path = format!("/proc/{pid}/mem");
        let memory = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let syscall_at = find_syscall(pid).unwrap();
        let first = room_in_vdso(&memory, syscall_at).unwrap();
        let image = || {
            let (start, _) = vdso_around(&memory, syscall_at).unwrap();
            let mut bytes = vec![0; usize::try_from(first - start).unwrap() + detour::BYTES];
            memory.read_exact_at(&mut bytes, start).unwrap();
            bytes
        };
        let before = image();
        memory.write_all_at(&[0xcc], first + 7).unwrap();
        let second = room_in_vdso(&memory, syscall_at).unwrap();
        let is_same = vdso::is_same(&before, &image());
        assert_eq!(second, first - detour::BYTES as u64);
        assert!(is_same, "it is the same kernel's image still");
    }
}
