//! x86-64: the code a puppet runs, its registers, and how interrupted system calls go on.

pub(crate) mod blob;
pub(crate) mod detour;
pub(crate) mod interrupted;
pub(crate) mod signal_frame;
pub(crate) mod vdso;
