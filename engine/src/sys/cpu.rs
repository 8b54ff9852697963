//! What the processor says of itself.

use std::arch::x86_64::__cpuid_count;
use std::io;

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

/// Asks the kernel for its own pages, which every process has already: EEXIST where it knows
/// ARCH_MAP_VDSO_64 of arch_prctl(2), and EINVAL where it does not.
pub(crate) fn map_vdso() -> io::Result<()> {
    const ARCH_MAP_VDSO_64: libc::c_int = 0x2003;
    // SAFETY: an address of 0 has the kernel choose a free place, so nothing is replaced.
    arch_prctl(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_MAP_VDSO_64, 0) })
}

/// The state components that this process may use: ARCH_GET_XCOMP_PERM.
pub(crate) fn permitted_state() -> io::Result<u64> {
    const ARCH_GET_XCOMP_PERM: libc::c_int = 0x1022;
    let mut bits = 0_u64;
    // SAFETY: ARCH_GET_XCOMP_PERM writes one u64, which `bits` is.
    let ret = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut bits) };
    arch_prctl(ret).map(|()| bits)
}

fn arch_prctl(ret: libc::c_long) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
