//! What the kernel shows as text, with names in it that programs choose.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| engine::fuzzing::procfs(text));
