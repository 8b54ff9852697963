//! A stopped thread that makes system calls for us.
//!
//! The code it runs and the calls it makes lie in an *arena*: a memfd mapped both here and there,
//! so a batch costs one round trip through the scheduler and no copying into foreign memory; many
//! threads make theirs at the same time, each in a [`lane`] of the arena.
//! Before the arena exists, and to remove it again, calls are made one at a time at a `syscall`
//! instruction that the process has anyway, in its vdso.
//!
//! A program must outlive us. Between two calls or batches its registers and its mask are its own,
//! and in them it has a way back that does not need us: a signal frame for a batch ([`way_back`]),
//! a few bytes of code for a single call ([`detour`]), where there is room for them.

mod detour;
mod lane;
mod places;
mod steered;
mod walk;
mod way_back;

use self::lane::Lane;
use self::places::zero_byte;
pub use self::places::{find_syscall, free_address};
pub use self::steered::Steered;
pub(crate) use self::walk::Errand;
use crate::arch::x86_64::blob;
use crate::batch::Batch;
use crate::error::{Error, OnObject as _};
use crate::sys::process::{pidfd_getfd, pidfd_open};
use crate::sys::shared_bytes::SharedBytes;
use crate::tracee::OnOurDeath;
use std::os::fd::AsFd as _;
use std::rc::Rc;

pub const ARENA_BYTES: u64 = ARENA_LENGTH as u64;
const ARENA_LENGTH: usize = 1 << 20;

impl Batch {
    /// Whether it is time to run it: a batch has room for more than two thousand calls.
    pub fn is_full(&self) -> bool {
        let Lane { bytes, .. } = Lane::WHOLE;
        self.entries.len() > Lane::WHOLE.entries_max() / 2 || self.bytes.len() > bytes.len() / 2
    }
}

/// The memory through which a tree of processes is steered. Forked processes share it.
#[derive(Debug)]
struct Arena {
    memory: SharedBytes,
    on_our_death: OnOurDeath,
}

/// A process with the arena in its address space.
#[derive(Clone, Debug)]
pub struct Puppet {
    arena: Rc<Arena>,
    address: u64,
}

impl Puppet {
    /// Maps a new arena at `address`, which must be free; `syscall_at` is a `syscall`
    /// instruction of the process.
    pub fn open(
        steered: &Steered<'_>,
        address: u64,
        syscall_at: u64,
        on_our_death: OnOurDeath,
    ) -> Result<Self, Error> {
        let thread = steered.thread();
        let object = || thread.object();
        // The name is empty: the padding of the ELF identification in front of the code.
        let name = zero_byte(thread.pid(), syscall_at).on("find a zero byte in", object)?;
        let memfd = steered.call(
            syscall_at,
            "make memory to share with",
            libc::SYS_memfd_create,
            [name, libc::MFD_CLOEXEC.into(), 0, 0, 0, 0],
        )?;
        let opened = Self::share(steered, address, syscall_at, memfd)
            .map(|memory| Self { arena: Rc::new(Arena { memory, on_our_death }), address });
        steered.call(syscall_at, "close in", libc::SYS_close, [memfd, 0, 0, 0, 0, 0])?;
        opened
    }

    fn share(
        steered: &Steered<'_>,
        address: u64,
        syscall_at: u64,
        memfd: u64,
    ) -> Result<SharedBytes, Error> {
        let thread = steered.thread();
        let object = || thread.object();
        let process = pidfd_open(thread.pid()).on("open", object)?;
        let number = i32::try_from(memfd).unwrap_or(-1);
        let local = pidfd_getfd(process.as_fd(), number).on("share memory with", object)?;
        nix::unistd::ftruncate(&local, ARENA_BYTES.cast_signed())
            .on("share memory with", object)?;
        let memory =
            SharedBytes::map(local.as_fd(), ARENA_LENGTH).on("share memory with", object)?;
        let protection = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).cast_unsigned();
        let flags = (libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE).cast_unsigned();
        steered.call(
            syscall_at,
            "map shared memory into",
            libc::SYS_mmap,
            [address, ARENA_BYTES, protection.into(), flags.into(), memfd, 0],
        )?;
        memory.write(0, &blob::CODE);
        Ok(memory)
    }

    /// Where the arena lies in the process.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Where a `syscall` instruction stands inside the arena.
    pub fn syscall_at(&self) -> u64 {
        self.address + blob::SYSCALL_OFFSET
    }

    /// The same arena once more at another address, after `moved_to` was mapped there.
    pub fn at(&self, address: u64) -> Self {
        Self { arena: Rc::clone(&self.arena), address }
    }

    /// Whether what is steered is a stub of ours, and no program.
    fn dies_with_us(&self) -> bool {
        self.arena.on_our_death == OnOurDeath::Dies
    }

    /// Unmaps the arena, by a `syscall` instruction outside of it.
    pub fn close(self, steered: &Steered<'_>, syscall_at: u64) -> Result<(), Error> {
        let args = [self.address, ARENA_BYTES, 0, 0, 0, 0];
        steered.call(syscall_at, "unmap our memory from", libc::SYS_munmap, args).map(drop)
    }
}

#[cfg(test)]
mod many;
#[cfg(test)]
mod our_death;

#[cfg(test)]
mod tests;
