//! Kernel interfaces that no library wraps, each made safe here. The only unsafe code.

pub(crate) mod fd;
#[cfg(test)]
pub(crate) mod here;
pub(crate) mod sock;
