//! What the processor says of itself.

use std::arch::x86_64::__cpuid_count;

/// The state that XSAVE saves here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Xsave {
    /// Bytes, in the standard format, of everything that is enabled.
    pub(crate) size: u32,
    /// State components, as the bits of XCR0.
    pub(crate) features: u64,
}

/// Leaf 0xD of cpuid: Intel SDM volume 1, chapter 13.
pub(crate) fn xsave() -> Xsave {
    #[allow(
        unused_unsafe,
        reason = "safe since Rust 1.94 on x86-64, where the instruction always is"
    )]
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    let leaf = unsafe { __cpuid_count(0xd, 0) };
    Xsave { size: leaf.ebx, features: u64::from(leaf.edx) << 32 | u64::from(leaf.eax) }
}
