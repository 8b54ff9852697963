//! Our own mapping in a stub, which has to move when the program maps something there.

use super::Stub;
use crate::args;
use crate::batch::Batch;
use crate::error::Error;
use crate::memory::mapping_image::MappingImage;
use crate::puppet::{ARENA_BYTES, free_address};

pub(super) fn make_way(stub: &mut Stub, wanted: &[MappingImage]) -> Result<(), Error> {
    let at = stub.puppet.address();
    let overlaps = |m: &MappingImage| m.start < at + ARENA_BYTES && at < m.end;
    if !wanted.iter().any(overlaps) {
        return Ok(());
    }
    let taken: Vec<(u64, u64)> = wanted
        .iter()
        .chain(&stub.mappings)
        .map(|mapping| (mapping.start, mapping.end))
        .chain([(at, at + ARENA_BYTES)])
        .collect();
    let to = free_address(&taken).ok_or_else(|| {
        Error::invalid("find room in", stub.object(), "its mappings leave none for ours")
    })?;
    relocate(stub, to)
}

/// mremap(2) with an old size of zero maps shared memory a second time.
fn relocate(stub: &mut Stub, to: u64) -> Result<(), Error> {
    let from = stub.puppet.address();
    let object = stub.object();
    let mut batch = Batch::new();
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let args = args![from, 0, ARENA_BYTES, flags, to];
    batch.call("move our memory in", &object, libc::SYS_mremap, args);
    stub.run(&batch)?;
    stub.puppet = stub.puppet.at(to);
    let mut batch = Batch::new();
    batch.call("move our memory in", &object, libc::SYS_munmap, args![from, ARENA_BYTES]);
    stub.run(&batch).map(drop)
}
