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
    let leaf = leaf_0xd(0);
    Xsave { size: leaf.ebx, features: u64::from(leaf.edx) << 32 | u64::from(leaf.eax) }
}

/// Bytes, in the standard format, up to the end of these components. Slow in a virtual machine,
/// which traps every cpuid.
pub(crate) fn xsave_bytes(features: u64) -> usize {
    const LEGACY_AND_HEADER_BYTES: usize = 576;
    let ends = (2..63).filter(|component| features & (1 << component) != 0).map(|component| {
        let leaf = leaf_0xd(component);
        leaf.ebx as usize + leaf.eax as usize
    });
    ends.max().unwrap_or(0).max(LEGACY_AND_HEADER_BYTES)
}

fn leaf_0xd(subleaf: u32) -> std::arch::x86_64::CpuidResult {
    #[allow(
        unused_unsafe,
        reason = "safe since Rust 1.94 on x86-64, where the instruction always is"
    )]
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    unsafe {
        __cpuid_count(0xd, subleaf)
    }
}
