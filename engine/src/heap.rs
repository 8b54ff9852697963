//! The heap of our own process, which must stay small however much memory moves.

use crate::sys;

/// All threads take memory from one place; call it before there is a second one.
///
/// glibc gives each thread an arena of its own, up to eight for each processor, and an arena keeps
/// what was freed in it. Whichever thread of the runtime receives the next packets would fill its
/// own up to the whole window of the link: 113 MiB after 4 GiB on two processors, and more on more.
/// An arena that is not the first one also grows by an mprotect(2) for each few pages.
pub fn share() {
    if !sys::heap::set_arenas_max(1) {
        tracing::warn!("the C library keeps a heap for each thread: more memory than 100 MiB");
    }
}
