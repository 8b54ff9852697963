//! Process ids that are kept free of a tree, for whoever brings it back in a namespace of its own.
//!
//! The first processes of a new PID namespace have its lowest ids. If a tree had any of these, it could
//! not come back: `migrate restore` is there already.

use engine::{Error, Object, OnObject as _};
use std::fs;

/// The kernel does not give them out again when ids have wrapped around: `RESERVED_PIDS`.
pub(crate) const SPARED: i32 = 300;

const LAST: &str = "/proc/sys/kernel/ns_last_pid";

/// What starts from now on in this PID namespace gets higher ids than `last`: proc(5).
pub(crate) fn spare(last: i32) -> Result<(), Error> {
    let object = || Object::File { path: LAST.to_owned() };
    fs::write(LAST, last.to_string()).on("write the last process id into", object)
}
