//! Which pages of a process were written since the last time we asked.
//!
//! The kernel has two ways to know. Which of them works here is found out on a scratch page of
//! our own, never by an errno: on a kernel without soft-dirty, writing 4 to `clear_refs` succeeds
//! and does nothing.

use super::known::Known;
use super::mapping::Mapping;
use super::soft_dirty::{self, SoftDirty};
use super::write_protect::{self, WriteProtect};
use super::{PageRun, PageSet};
use crate::error::{Error, Object, OnObject as _};
use crate::puppet::Steered;
use crate::sys::process::{pidfd_getfd, pidfd_open};
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// userfaultfd with WP_ASYNC, and PAGEMAP_SCAN (Linux 6.7). Needs a userfaultfd that the
    /// process itself created: [`take_userfaultfd`].
    WriteProtect,
    /// `clear_refs` and bit 55 of pagemap (CONFIG_MEM_SOFT_DIRTY).
    SoftDirty,
}

impl Method {
    const ALL: [Self; 2] = [Self::WriteProtect, Self::SoftDirty];

    pub fn name(self) -> &'static str {
        match self {
            Self::WriteProtect => "write-protect",
            Self::SoftDirty => "soft-dirty",
        }
    }

    fn works(self) -> bool {
        match self {
            Self::WriteProtect => write_protect::works(),
            Self::SoftDirty => soft_dirty::works(),
        }
    }
}

/// The environment variable by which an operator allows one method alone: its [`Method::name`].
pub const ALLOWED: &str = "MIGRATE_TRACKING";

/// The best method that works on this kernel and is allowed; `None` when there is none.
///
/// Write protection comes first where both work, because it asks and protects in one step:
/// soft-dirty has to stop the process for every round, for as long as reading its pagemap takes.
pub fn probe() -> Option<Method> {
    let allowed = std::env::var_os(ALLOWED);
    let is_allowed =
        |method: &Method| allowed.as_ref().is_none_or(|name| name.as_os_str() == method.name());
    Method::ALL.into_iter().filter(is_allowed).find(|method| method.works())
}

/// One round's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub pages: u64,
    /// Of `pages`, those known to be zeros.
    pub zero_pages: u64,
    /// Of `pages`, those that cannot be tracked and so count as written every time.
    pub untracked_pages: u64,
    /// Pages in memory that the list of mappings did not have. They were mapped since it was
    /// read and come with the next round; of a process that stands still there are none.
    pub unlisted_pages: u64,
}

impl Collected {
    pub(super) fn add(&mut self, run: PageRun) {
        self.pages += run.pages;
        self.zero_pages += if run.zero { run.pages } else { 0 };
    }
}

/// What is found in the freeze. It is small, or the freeze would be long for other reasons.
#[derive(Debug)]
pub struct LastLook {
    pub collected: Collected,
    pub written: Vec<PageRun>,
    pub gone: PageSet,
    /// Counted as unwritten, and the tracker does not vouch for it: see [`super::copies`].
    pub in_doubt: PageSet,
}

/// Private pages only: what is shared is carried by object. `mappings` is a recent list, all of
/// the process, by rising address.
pub trait Tracker: fmt::Debug + Send {
    /// Whether every thread must stand still while `collect` runs, else writes are lost.
    fn needs_standstill(&self) -> bool;

    /// Whether [`LastLook::in_doubt`] has every copy of a file's page that counts as unwritten.
    fn doubts_copies(&self) -> bool;

    /// Visits every page written since the last call, at the first call every page there is, and
    /// starts over. After an error the next call visits every page again.
    ///
    /// ESRCH says that the process is gone or runs another program now, and needs a new tracker.
    fn collect(
        &mut self,
        mappings: &[Mapping],
        visit: &mut dyn FnMut(PageRun),
    ) -> Result<Collected, Error>;

    /// How many pages `collect` would visit now.
    fn peek(&mut self, mappings: &[Mapping]) -> Result<u64, Error>;

    /// The known pages that hold nothing any more: thrown away with madvise(2), or unmapped.
    /// No tracker reports these as written, and the destination would keep their old content.
    fn gone(&mut self, mappings: &[Mapping], known: &Known<'_>) -> Result<PageSet, Error>;

    /// `collect` and `gone` in one look, of a process that stands still.
    fn collect_frozen(
        &mut self,
        mappings: &[Mapping],
        known: &Known<'_>,
    ) -> Result<LastLook, Error>;
}

/// Makes a stopped process create the userfaultfd that [`write_protect`] needs, and takes it away:
/// no descriptor is left in the process. `syscall_at` is a `syscall` instruction of it.
pub fn take_userfaultfd(steered: &Steered<'_>, syscall_at: u64) -> Result<OwnedFd, Error> {
    let flags = i64::from(crate::sys::uffd::CREATE_FLAGS).cast_unsigned();
    let number = steered.call(
        syscall_at,
        "create a userfaultfd in",
        libc::SYS_userfaultfd,
        [flags, 0, 0, 0, 0, 0],
    )?;
    let pid = steered.thread().pid();
    let taken = pidfd_open(pid)
        .and_then(|process| pidfd_getfd(process.as_fd(), i32::try_from(number).unwrap_or(-1)))
        .on("take the userfaultfd of", || Object::Process { pid });
    steered.call(syscall_at, "close in", libc::SYS_close, [number, 0, 0, 0, 0, 0])?;
    taken
}

/// `userfaultfd` comes from [`take_userfaultfd`], and is the only reference there is. Dropping the
/// tracker takes all marks off; what remains is that protected pages cost one short fault each
/// (about 150 ns) when they are next written.
pub fn write_protect(pid: i32, userfaultfd: OwnedFd) -> Result<Box<dyn Tracker>, Error> {
    Ok(Box::new(WriteProtect::new(pid, userfaultfd)?))
}

pub fn soft_dirty(pid: i32) -> Result<Box<dyn Tracker>, Error> {
    Ok(Box::new(SoftDirty::new(pid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_judged_by_what_it_does() {
        // Each works or does not; either way it must be the same on every asking.
        assert_eq!(probe(), probe());
        if write_protect::works() && std::env::var_os(ALLOWED).is_none() {
            assert_eq!(probe(), Some(Method::WriteProtect));
        }
    }
}
