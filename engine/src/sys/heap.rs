//! How the C library hands out memory in our own process: mallopt(3).

/// At most this many arenas, of which each keeps what its threads have freed.
#[cfg(target_env = "gnu")]
pub(crate) fn set_arenas_max(count: i32) -> bool {
    // SAFETY: takes plain numbers, and locks what it changes.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, count) == 1 }
}

/// Other C libraries have no such arenas.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn set_arenas_max(_count: i32) -> bool {
    true
}
