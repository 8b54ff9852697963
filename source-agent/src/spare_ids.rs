//! Process ids that are kept free of a tree, for whoever brings it back in a namespace of its own.
//!
//! The first processes of a new PID namespace have its lowest ids. If a tree had any of these, it could
//! not come back: `migrate restore` is there already. It has the highest ids instead: a tree may have any,
//! but those of one that was started early are low.

use engine::{Error, Object, OnObject as _};
use std::fs;
use std::io;

/// The kernel does not give them out again when ids have wrapped around: `RESERVED_PIDS`.
pub(crate) const SPARED: i32 = 300;

/// Threads of `migrate restore`, and whatever it starts: some tens.
const OWN_IDS: i32 = 1000;

const HIGHEST: &str = "/proc/sys/kernel/pid_max";
const LAST: &str = "/proc/sys/kernel/ns_last_pid";

/// What starts from now on in this PID namespace, up to the next word, gets the highest ids that there are.
pub(crate) fn spare_all_but_the_highest() -> Result<(), Error> {
    let object = || Object::File { path: HIGHEST.to_owned() };
    let highest = fs::read_to_string(HIGHEST).on("read", object)?;
    let highest = highest.trim().parse::<i32>().map_err(io::Error::other).on("read", object)?;
    spare(highest.saturating_sub(OWN_IDS).max(SPARED))
}

/// What starts from now on in this PID namespace gets higher ids than `last`: proc(5).
pub(crate) fn spare(last: i32) -> Result<(), Error> {
    let object = || Object::File { path: LAST.to_owned() };
    fs::write(LAST, last.to_string()).on("write the last process id into", object)
}
