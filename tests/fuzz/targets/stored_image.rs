//! Images in directories: their files by themselves, and all of them with digests that are right.

#![no_main]

use engine::fuzzing::stored;
use engine::image::{Manifest, Tree, decode};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static HOME: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
});

/// Behind the lengths of the first three: manifest, tree, index, pages.
fn parts(bytes: &[u8]) -> Option<[&[u8]; 4]> {
    let (lengths, rest) = bytes.split_first_chunk::<6>()?;
    let length = |at: usize| usize::from(u16::from_le_bytes([lengths[at], lengths[at + 1]]));
    let (manifest, rest) = rest.split_at_checked(length(0))?;
    let (tree, rest) = rest.split_at_checked(length(2))?;
    let (index, pages) = rest.split_at_checked(length(4))?;
    Some([manifest, tree, index, pages])
}

fuzz_target!(|bytes: &[u8]| {
    stored::index(bytes, 1 << 20);
    stored::framed(bytes);
    let _ = decode::<Manifest>("manifest", bytes);
    let _ = decode::<Tree>("tree", bytes);
    let Some([manifest, tree, index, pages]) = parts(bytes) else { return };
    let manifest = decode("manifest", manifest).unwrap_or_default();
    stored::write(HOME.path(), manifest, [tree, index, pages]).expect("files can be written");
    let _ = stored::open(HOME.path());
});
