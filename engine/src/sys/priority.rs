//! The rank of our own threads among all others: setpriority(2), sched_setscheduler(2).

use std::io;

/// On Linux a nice value belongs to a thread; 0 is the calling one.
pub(crate) fn nice(tid: i32) -> i32 {
    // SAFETY: takes and returns plain numbers. It cannot fail for a thread of ours, and for one
    // that has just ended it says -1, which nobody uses.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, tid.cast_unsigned()) }
}

pub(crate) fn set_nice(tid: i32, nice: i32) -> io::Result<()> {
    // SAFETY: takes plain numbers, and only changes when the thread runs.
    let ret = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid.cast_unsigned(), nice) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the calling thread run before every normal one; its children are normal.
pub(crate) fn set_realtime() -> io::Result<()> {
    set_policy(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1)
}

/// Makes the calling thread a normal one again.
pub(crate) fn set_normal() -> io::Result<()> {
    set_policy(libc::SCHED_OTHER, 0)
}

fn set_policy(policy: i32, priority: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel only reads the parameter, which lives until the call returns.
    let ret = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
