//! Which pages a process needs before it may run again.

use crate::aspects;
use crate::image::{ProcessImage, ThreadImage};
use crate::memory::PageSet;
use crate::memory::lazy::pages_of;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Above the stack pointer: the frames that a thread returns through first.
const STACK_BYTES: u64 = 16 << 10;
/// Below it: the red zone and a signal frame with all vector registers.
const BELOW_STACK_BYTES: u64 = 8 << 10;
/// Around the thread pointer: thread-local variables below it, the thread's own record above.
const THREAD_RECORD_BYTES: u64 = 4 << 10;
const RSEQ_BYTES: u64 = 64;
/// ROBUST_LIST_LIMIT of the kernel: it looks no further.
const ROBUST_ENTRIES_MAX: usize = 2048;

/// `word` reads eight bytes of its memory.
pub(crate) fn of_process(
    process: &ProcessImage,
    word: impl Fn(u64) -> Option<u64> + Copy,
) -> PageSet {
    pages_of(process.threads.iter().flat_map(|thread| of_thread(thread, word)))
}

/// Of a process that stands still.
pub(super) fn of_frozen(process: &ProcessImage) -> PageSet {
    let memory = File::open(format!("/proc/{}/mem", process.pid)).ok();
    of_process(process, |address| {
        let mut bytes = [0; 8];
        memory.as_ref()?.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_ne_bytes(bytes))
    })
}

/// Address and length of everything that is touched at once, or by a kernel that does not wait.
fn of_thread(thread: &ThreadImage, word: impl Fn(u64) -> Option<u64>) -> Vec<(u64, u64)> {
    let Ok(registers) = thread.registers() else { return Vec::new() };
    let stack = registers.rsp.saturating_sub(BELOW_STACK_BYTES);
    let record = registers.fs_base.saturating_sub(THREAD_RECORD_BYTES / 2);
    let mut found = vec![
        (registers.rip, 64),
        (stack, BELOW_STACK_BYTES + STACK_BYTES),
        (record, THREAD_RECORD_BYTES),
        (thread.rseq.unwrap_or_default().pointer, RSEQ_BYTES),
    ];
    found.extend(aspects::touched_by_kernel(&thread.aspects));
    if let Some(head) = aspects::robust_list_head(&thread.aspects) {
        found.extend(robust_entries(word, head));
    }
    found
}

/// The locks that a thread holds: `struct robust_list_head` of the kernel is the first entry, the
/// distance from an entry to its lock word, and the entry that is just being taken.
fn robust_entries(word: impl Fn(u64) -> Option<u64>, head: u64) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let Some(distance) = word(head.wrapping_add(8)) else { return found };
    let mut lock = |entry: u64| found.extend([(entry, 8), (entry.wrapping_add(distance), 4)]);
    if let Some(pending) = word(head.wrapping_add(16)).filter(|&entry| entry != 0) {
        lock(pending & !1);
    }
    let mut next = word(head);
    for _ in 0..ROBUST_ENTRIES_MAX {
        // The lowest bit says that it is a priority-inheriting lock.
        let Some(entry) = next.map(|entry| entry & !1).filter(|&e| e != 0 && e != head) else {
            break;
        };
        lock(entry);
        next = word(entry);
    }
    found
}
