//! The vdso of a foreign kernel, which is an ELF file in a layout.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static OURS: LazyLock<Vec<u8>> = LazyLock::new(engine::fuzzing::our_vdso);

fuzz_target!(|changed: (Vec<(u16, u8)>, Option<&[u8]>, u64)| {
    let (changed, whole, at) = changed;
    // Mostly a good one with a few bytes changed: random bytes are no ELF.
    let mut source = whole.map_or_else(|| OURS.clone(), <[u8]>::to_vec);
    for (offset, byte) in changed {
        if let Some(place) = source.get_mut(usize::from(offset)) {
            *place = byte;
        }
    }
    engine::fuzzing::redirect_vdso(&source, &OURS, at);
});
