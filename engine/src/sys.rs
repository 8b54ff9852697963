//! Kernel interfaces that no library wraps, each made safe here. The only unsafe code.

pub(crate) mod fd;
pub(crate) mod holder;
pub(crate) mod uffd_missing;
pub(crate) mod vm_write;
