//! Memory that we share with a process we steer.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;

/// A mapping of a memfd. The other side may write at any time, so it is only copied in and out.
#[derive(Debug)]
pub(crate) struct SharedBytes {
    start: *mut u8,
    length: usize,
}

impl SharedBytes {
    pub(crate) fn map(fd: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = fd.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing of ours.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length })
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length, "a write stays inside the mapping");
        // SAFETY: the assertion keeps the offset inside the mapping.
        let at = unsafe { self.start.add(offset) };
        // SAFETY: in bounds by the assertion; `bytes` is ours, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
    }

    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length, "a read stays inside the mapping");
        let mut bytes = vec![0; length];
        // SAFETY: the assertion keeps the offset inside the mapping.
        let at = unsafe { self.start.add(offset) };
        // SAFETY: in bounds by the assertion; `bytes` is new, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), length) };
        bytes
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours alone and nothing borrows from it.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// Shared anonymous memory, as a descriptor: `/proc/self/map_files` leads to what is behind a
/// mapping, and wants CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN (Linux 5.9).
pub(crate) fn shared_anonymous(bytes: u64) -> io::Result<OwnedFd> {
    let length = usize::try_from(bytes).map_err(io::Error::other)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing of ours.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let from = start as u64;
    let path =
        format!("/proc/self/map_files/{from:x}-{:x}", from + length.next_multiple_of(4096) as u64);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path);
    // SAFETY: the mapping was made above, is ours alone, and nothing borrows from it.
    unsafe { libc::munmap(start, length) };
    file.map(OwnedFd::from)
}
