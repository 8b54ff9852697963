//! Kernel interfaces that no library wraps, each made safe here. The only unsafe code.

pub(crate) mod fd;
pub(crate) mod pagemap;
pub(crate) mod process;
pub(crate) mod ptrace;
pub(crate) mod shared_bytes;
pub(crate) mod uffd;
pub(crate) mod vm;
