//! What this kernel's prctl(2) can do.

/// Read and set by PR_TIMER_CREATE_RESTORE_IDS; not in the libc crate yet.
const PR_TIMER_CREATE_RESTORE_IDS: libc::c_int = 77;
const PR_TIMER_CREATE_RESTORE_IDS_GET: libc::c_ulong = 2;

/// Whether timer_create(2) can be told which id to use, Linux 6.15. Found by asking: EINVAL where
/// the kernel does not know it.
pub(crate) fn restores_timer_ids() -> bool {
    let unused: libc::c_ulong = 0;
    // SAFETY: this option reads a flag of the calling process and takes no pointers.
    let answer = unsafe {
        libc::prctl(
            PR_TIMER_CREATE_RESTORE_IDS,
            PR_TIMER_CREATE_RESTORE_IDS_GET,
            unused,
            unused,
            unused,
        )
    };
    answer >= 0
}
