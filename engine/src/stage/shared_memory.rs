//! Memory that several processes share, and memfds: made once, then mapped and opened by all.

use crate::args;
use crate::batch::{Batch, Call};
use crate::error::{Error, Object, OnObject as _};
use crate::memory::mapping_image::{ObjectImage, OriginImage};
use crate::sys;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

#[derive(Debug, Default)]
pub(crate) struct SharedMemories(BTreeMap<u32, Held>);

#[derive(Debug)]
struct Held {
    fd: OwnedFd,
    size: u64,
}

impl SharedMemories {
    /// Makes what is not there yet, and gives what is there its present size.
    pub(super) fn complete(&mut self, wanted: &[ObjectImage]) -> Result<(), Error> {
        self.0.retain(|space, _| wanted.iter().any(|shared| shared.space == *space));
        for shared in wanted {
            let object = || object(shared.space);
            let held = match self.0.remove(&shared.space) {
                Some(held) => held,
                None => Held { fd: make(shared).on("make", object)?, size: shared.size },
            };
            if held.size != shared.size {
                resize(&held.fd, shared.size).on("size", object)?;
            }
            self.0.insert(shared.space, Held { size: shared.size, ..held });
        }
        Ok(())
    }

    /// Our own descriptor of it.
    pub(crate) fn descriptor(&self, space: u32) -> Result<BorrowedFd<'_>, Error> {
        self.0
            .get(&space)
            .map(|held| held.fd.as_fd())
            .ok_or_else(|| Error::invalid("find", object(space), "the layout does not have it"))
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.0.iter().map(|(&space, held)| (space, held.fd.as_fd()))
    }

    /// A new description of it, with an offset of its own.
    pub(crate) fn open(&self, space: u32, flags: i32) -> Result<OwnedFd, Error> {
        let fd = self.descriptor(space)?;
        let mode = flags & libc::O_ACCMODE;
        let other = flags & !(libc::O_ACCMODE | libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC);
        OpenOptions::new()
            .read(mode != libc::O_WRONLY)
            .write(mode != libc::O_RDONLY)
            .custom_flags(other)
            .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map(OwnedFd::from)
            .on("open", || object(space))
    }

    /// F_ADD_SEALS of fcntl(2): last, because a seal forbids what filling needs.
    pub(crate) fn seal(&self, space: u32, seals: i32) -> Result<(), Error> {
        let seals = SealFlag::from_bits_retain(seals);
        if seals.is_empty() {
            return Ok(());
        }
        fcntl(self.descriptor(space)?, FcntlArg::F_ADD_SEALS(seals))
            .map(drop)
            .on("seal", || object(space))
    }
}

fn object(space: u32) -> Object {
    Object::Image { part: format!("shared memory {space}") }
}

fn make(shared: &ObjectImage) -> io::Result<OwnedFd> {
    match &shared.origin {
        Some(OriginImage::SharedAnonymous(_)) => sys::shared_bytes::shared_anonymous(shared.size),
        Some(OriginImage::MemfdName(name)) => {
            let name = CString::new(name.as_slice())?;
            let fd = sys::process::memfd(&name, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?;
            resize(&fd, shared.size)?;
            Ok(fd)
        }
        // Refused by the inventory; an image that has one all the same is not ours.
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "its origin is not supported")),
    }
}

fn resize(fd: &OwnedFd, bytes: u64) -> io::Result<()> {
    let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
    Ok(nix::unistd::ftruncate(fd, bytes)?)
}

/// Hands one of our descriptors to the stub that does the batch.
pub(crate) fn fetch(fd: BorrowedFd<'_>, object: &Object, batch: &mut Batch) -> Call {
    let us = args![std::process::id(), 0];
    let pidfd = batch.call("open ourselves for", object, libc::SYS_pidfd_open, us);
    let args = args![pidfd, fd.as_raw_fd(), 0];
    let fetched = batch.call("hand a descriptor to", object, libc::SYS_pidfd_getfd, args);
    batch.call("close our pidfd in", object, libc::SYS_close, args![pidfd]);
    fetched
}
