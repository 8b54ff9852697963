//! What the kernel knows about a mapping beyond its permissions: the `VmFlags` line of smaps.

use std::fmt;

/// proc(5) and `show_smap_vma_flags` in fs/proc/task_mmu.c; the place in this list is the bit.
const CODES: [&str; 38] = [
    "rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "pf", "lo", "io", "sr", "rr", "dc", "de",
    "lf", "ac", "nr", "ht", "sf", "ar", "wf", "dd", "sd", "mm", "hg", "nh", "mg", "um", "uw", "ui",
    "ss", "sl", "dp", "gu", "bt", "mt",
];

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VmFlags(u64);

impl VmFlags {
    pub const NONE: Self = Self(0);
    pub const READ: Self = Self::of("rd");
    pub const WRITE: Self = Self::of("wr");
    pub const EXECUTE: Self = Self::of("ex");
    /// Registered with a userfaultfd that waits for writes.
    pub const WATCHED: Self = Self::of("uw");
    /// It could be made readable, writable, executable by mprotect(2).
    pub const MAY_READ: Self = Self::of("mr");
    pub const MAY_WRITE: Self = Self::of("mw");
    pub const MAY_EXECUTE: Self = Self::of("me");
    pub const GROWS_DOWN: Self = Self::of("gd");
    /// Page frames without a page behind them: device memory.
    pub const PAGE_FRAMES: Self = Self::of("pf");
    pub const DEVICE_IO: Self = Self::of("io");
    pub const LOCKED: Self = Self::of("lo");
    pub const LOCKED_ON_FAULT: Self = Self::of("lf");
    pub const SEQUENTIAL_READ: Self = Self::of("sr");
    pub const RANDOM_READ: Self = Self::of("rr");
    pub const DONT_FORK: Self = Self::of("dc");
    /// Its pages count against the commit limit: it is, or once was, private and writable.
    pub const ACCOUNTED: Self = Self::of("ac");
    pub const NO_RESERVE: Self = Self::of("nr");
    pub const HUGE_TLB: Self = Self::of("ht");
    pub const WIPE_ON_FORK: Self = Self::of("wf");
    pub const DONT_DUMP: Self = Self::of("dd");
    pub const HUGE_PAGES: Self = Self::of("hg");
    pub const NO_HUGE_PAGES: Self = Self::of("nh");
    pub const MERGEABLE: Self = Self::of("mg");
    pub const SHADOW_STACK: Self = Self::of("ss");
    pub const SEALED: Self = Self::of("sl");
    pub const DROPPABLE: Self = Self::of("dp");
    /// MADV_GUARD_INSTALL was used in it (shown since Linux 6.15).
    pub const GUARDS: Self = Self::of("gu");

    const fn of(code: &str) -> Self {
        let code = code.as_bytes();
        let mut bit = 0;
        while bit < CODES.len() {
            let known = CODES[bit].as_bytes();
            if known[0] == code[0] && known[1] == code[1] {
                return Self(1 << bit);
            }
            bit += 1;
        }
        panic!("not a code of smaps")
    }

    /// The words after `VmFlags:`. A flag that is newer than this list is passed over.
    pub fn parse(words: &str) -> Self {
        let bits = words
            .split_ascii_whitespace()
            .filter_map(|word| CODES.iter().position(|code| *code == word).map(|bit| 1 << bit));
        Self(bits.fold(0, |all, bit: u64| all | bit))
    }

    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    #[must_use]
    pub fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }

    #[must_use]
    pub fn and(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

impl fmt::Debug for VmFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = CODES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1);
        f.debug_list().entries(set.map(|(_, code)| code)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_a_stack_are_understood() {
        let flags = VmFlags::parse("rd wr mr mw me gd ac ");
        assert!(flags.has(VmFlags::GROWS_DOWN) && flags.has(VmFlags::ACCOUNTED));
        assert!(!flags.has(VmFlags::LOCKED));
    }

    #[test]
    fn a_flag_from_a_newer_kernel_disturbs_nothing() {
        assert_eq!(VmFlags::parse("rd zz wr ??"), VmFlags::parse("rd wr"));
    }
}
