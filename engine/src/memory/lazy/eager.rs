//! Which pages have to be there before a thread may run.

use crate::memory::page_set::{PAGE_BYTES, PageSet, Run};

/// The pages around addresses that are touched at once, or by a kernel that would not wait.
///
/// The caller lists, for every thread: the instruction pointer; the stack pointer and some
/// kilobytes above it; the thread control block (fs base); the rseq area, because registering it
/// writes it; the head of the robust list, its entries, and the `clear_child_tid` word, because a
/// task that exits gets no userfaultfd events: the kernel would skip them silently, and a join or
/// a robust mutex would wait for ever; the alternate signal stack. Null is no address.
pub fn pages_of(addresses: impl IntoIterator<Item = (u64, u64)>) -> PageSet {
    addresses
        .into_iter()
        .filter(|(address, _)| *address >= PAGE_BYTES)
        .map(|(address, bytes)| Run::covering(address, address.saturating_add(bytes.max(1))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_across_two_pages_needs_both() {
        let pages = pages_of([(0x1fffc, 8), (0x30000, 1), (0, 8)]);
        let runs: Vec<_> = pages.runs().collect();
        let expected = [(0x1f000, 2), (0x30000, 1)].map(|(address, pages)| Run { address, pages });
        assert_eq!(runs, expected);
    }
}
