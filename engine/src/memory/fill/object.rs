//! A shared memory object, written through a descriptor that the stage holds.

use super::{Error, Object, OnObject as _, Run};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

#[derive(Debug)]
pub(super) struct ObjectMemory {
    space: u32,
    file: File,
}

impl ObjectMemory {
    pub(super) fn new(space: u32, file: OwnedFd) -> Self {
        Self { space, file: file.into() }
    }

    pub(super) fn write(&self, pieces: &[(u64, &[u8])]) -> Result<(), Error> {
        pieces.iter().try_for_each(|(offset, bytes)| {
            self.file.write_all_at(bytes, *offset).on("write", || self.object())
        })
    }

    /// Gives pages back; they read as zeros then, through every mapping of the object.
    pub(super) fn punch(&self, runs: &[Run]) -> Result<(), Error> {
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        runs.iter().try_for_each(|run| {
            let (offset, length) = (run.address.cast_signed(), run.bytes().cast_signed());
            fallocate(&self.file, how, offset, length).on("punch a hole into", || self.object())
        })
    }

    fn object(&self) -> Object {
        Object::Image { part: format!("shared memory {}", self.space) }
    }
}
