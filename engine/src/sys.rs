//! Kernel interfaces that no library wraps, each made safe here. The only unsafe code.

pub(crate) mod alarm;
pub(crate) mod ancillary;
pub(crate) mod cpu;
pub(crate) mod datagram;
pub(crate) mod device;
pub(crate) mod fd;
pub(crate) mod filter;
pub(crate) mod heap;
#[cfg(test)]
pub(crate) mod here;
pub(crate) mod holder;
pub(crate) mod identity;
pub(crate) mod pagemap;
pub(crate) mod pages;
pub(crate) mod prctl;
pub(crate) mod priority;
pub(crate) mod process;
pub(crate) mod ptrace;
pub(crate) mod seclusion;
pub(crate) mod shared_bytes;
pub(crate) mod sock;
pub(crate) mod tcp;
pub(crate) mod trial;
pub(crate) mod uffd;
pub(crate) mod uffd_missing;
pub(crate) mod vm;
pub(crate) mod vm_write;
