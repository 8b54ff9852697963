//! Pages of our own that we may do anything to, to find out how this kernel behaves.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;

/// Private anonymous memory, page aligned, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, and no thread has an affinity to it.
unsafe impl Send for Scratch {}
// SAFETY: whoever shares it can only read, and all reads are volatile.
unsafe impl Sync for Scratch {}

impl Scratch {
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() as usize != usize::MAX => Ok(Self { start, bytes }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    pub(crate) fn end(&self) -> u64 {
        self.address() + self.bytes as u64
    }

    /// The compiler may not leave it out, nor believe that it knows the result.
    pub(crate) fn write(&mut self, offset: usize, value: u8) {
        assert!(offset < self.bytes, "inside the scratch memory");
        // SAFETY: in bounds, so still the same mapping.
        let at = unsafe { self.start.add(offset) };
        // SAFETY: mapped and writable for the life of `self`, and borrowed by nobody else.
        unsafe { at.write_volatile(value) };
    }

    pub(crate) fn read(&self, offset: usize) -> u8 {
        assert!(offset < self.bytes, "inside the scratch memory");
        // SAFETY: in bounds, so still the same mapping.
        let at = unsafe { self.start.add(offset) };
        // SAFETY: mapped and readable for the life of `self`.
        unsafe { at.read_volatile() }
    }

    /// Has the kernel read a byte of it, for a file: write(2).
    pub(crate) fn write_out(&self, offset: usize, file: BorrowedFd<'_>) -> io::Result<()> {
        assert!(offset < self.bytes, "inside the scratch memory");
        // SAFETY: in bounds, so still the same mapping.
        let at = unsafe { self.start.add(offset) };
        // SAFETY: the byte is mapped and readable for the life of `self`.
        let ret = unsafe { libc::write(file.as_raw_fd(), at.as_ptr().cast(), 1) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Whatever is written to it from now on is a mistake. Reading goes on.
    pub(crate) fn make_read_only(&mut self) -> io::Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: exactly our own mapping; no reference into it exists outside of this type.
        let ret = unsafe { libc::mprotect(start, self.bytes, libc::PROT_READ) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Tries to map something else over it, which MAP_FIXED_NOREPLACE forbids: EEXIST. A kernel
    /// that does not know the flag maps it elsewhere.
    pub(crate) fn is_not_replaced(&self) -> io::Result<bool> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let (start, none) = (self.start.as_ptr().cast(), libc::PROT_NONE);
        // SAFETY: with this flag nothing that is mapped is replaced; without it, the address is a
        // hint.
        let other = unsafe { libc::mmap(start, self.bytes, none, flags, -1, 0) };
        if other != libc::MAP_FAILED {
            // SAFETY: the mapping that was just made, which nothing uses.
            unsafe { libc::munmap(other, self.bytes) };
            return Ok(false);
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EEXIST) => Ok(true),
            error => Err(error),
        }
    }

    /// madvise(2) of the whole.
    pub(crate) fn advise(&mut self, advice: i32) -> io::Result<()> {
        // SAFETY: exactly our own mapping; no reference into it exists outside of this type.
        let ret = unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, advice) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made, and nothing can use it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
