//! The private memory of a stopped process, written from outside.

use super::{Error, Object, OnObject as _};
use crate::sys::vm_write;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

#[derive(Debug)]
pub(super) struct ProcessMemory {
    pid: i32,
    /// `/proc/PID/mem`: slower than process_vm_writev(2), but it also writes private mappings
    /// that the process may not write (read-only, executable, PROT_NONE).
    file: File,
}

impl ProcessMemory {
    pub(super) fn open(pid: i32) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .on("open the memory of", || Object::Process { pid })?;
        Ok(Self { pid, file })
    }

    pub(super) fn write(&self, pieces: &[(u64, &[u8])]) -> Result<(), Error> {
        pieces.chunks(vm_write::PIECES_MAX).try_for_each(|chunk| self.write_chunk(chunk))
    }

    /// One call as far as it gets; the piece it stopped at through the file; then on.
    fn write_chunk(&self, mut pieces: &[(u64, &[u8])]) -> Result<(), Error> {
        while let Some(&(address, bytes)) = pieces.first() {
            let written = match vm_write::write(self.pid, pieces) {
                Err(cause) if cause.raw_os_error() == Some(libc::EFAULT) => 0,
                other => other.on("write the memory of", || self.object(address, bytes))?,
            };
            let (done, left) = split(pieces, written);
            pieces = &pieces[done..];
            if let Some(&(address, bytes)) = pieces.first() {
                self.write_through_file(address + left as u64, &bytes[left..])?;
                pieces = &pieces[1..];
            }
        }
        Ok(())
    }

    fn write_through_file(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all_at(bytes, address)
            .on("write the memory of", || self.object(address, bytes))
    }

    fn object(&self, address: u64, bytes: &[u8]) -> Object {
        Object::Mapping { pid: self.pid, start: address, end: address + bytes.len() as u64 }
    }
}

/// How many pieces are done when so many bytes are, and how much of the next one.
fn split(pieces: &[(u64, &[u8])], mut written: usize) -> (usize, usize) {
    let mut done = 0;
    while done < pieces.len() && written >= pieces[done].1.len() {
        written -= pieces[done].1.len();
        done += 1;
    }
    (done, written)
}
