//! What this kernel's prctl(2) can do.

use std::io;

/// Read and set by PR_TIMER_CREATE_RESTORE_IDS; not in the libc crate yet.
const PR_TIMER_CREATE_RESTORE_IDS: libc::c_int = 77;
const PR_TIMER_CREATE_RESTORE_IDS_GET: libc::c_ulong = 2;

/// How long the structure of PR_SET_MM_MAP is here: PR_SET_MM_MAP_SIZE. EINVAL without it.
pub(crate) fn memory_map_bytes() -> io::Result<u32> {
    let (mut bytes, unused): (libc::c_uint, libc::c_ulong) = (0, 0);
    let what = libc::c_ulong::from(libc::PR_SET_MM_MAP_SIZE.unsigned_abs());
    // SAFETY: PR_SET_MM_MAP_SIZE writes one unsigned int, which `bytes` is.
    let ret = unsafe { libc::prctl(libc::PR_SET_MM, what, &raw mut bytes, unused, unused) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}

/// Where the kernel clears a word when the calling thread ends: PR_GET_TID_ADDRESS.
pub(crate) fn thread_id_address() -> io::Result<u64> {
    let mut address = 0_u64;
    // SAFETY: PR_GET_TID_ADDRESS writes one pointer, for which `address` has room.
    let ret = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address, 0, 0, 0) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(address) }
}

/// A setting of prctl(2) that is returned and takes no argument.
pub(crate) fn setting(query: libc::c_int) -> io::Result<libc::c_int> {
    let unused: libc::c_ulong = 0;
    // SAFETY: the queries that we know all answer with a number and take no pointers; one that
    // this kernel does not know is EINVAL.
    let ret = unsafe { libc::prctl(query, unused, unused, unused, unused) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

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
