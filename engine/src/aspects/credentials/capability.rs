//! Sets of capabilities as capget(2) and capset(2) have them, linux/capability.h.

use super::Capabilities;

/// struct __user_cap_header_struct: the version with two words a set, and the caller.
pub(super) fn cap_header() -> Vec<u8> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    [LINUX_CAPABILITY_VERSION_3, 0].map(u32::to_ne_bytes).concat()
}

/// struct __user_cap_data_struct, twice: the lower words, then the upper ones.
pub(super) fn cap_bytes(capabilities: &Capabilities) -> Vec<u8> {
    let Capabilities { effective, permitted, inheritable, .. } = *capabilities;
    let sets = [effective, permitted, inheritable];
    let half = |set: u64| u32::try_from(set & 0xffff_ffff).expect("masked to 32 bits");
    let words = |shift: u32| sets.map(|set| half(set >> shift).to_ne_bytes()).concat();
    [words(0), words(32)].concat()
}

pub(super) const CAP_SETPCAP: u32 = 8;

pub(super) fn bits(set: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| set & (1 << bit) != 0)
}
