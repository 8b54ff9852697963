//! Writing into the memory of a stopped process: process_vm_writev(2).

use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;
use std::io::{self, IoSlice};

/// The most pieces of one call (UIO_MAXIOV).
pub(crate) const PIECES_MAX: usize = 1024;

/// Writes at most [`PIECES_MAX`] pieces, in their order, and says how many bytes arrived; fewer
/// than all of them when a piece's address cannot be written (then the rest was not tried).
///
/// EFAULT when already the first address is not writable, ESRCH when the process is gone.
pub(crate) fn write(pid: i32, pieces: &[(u64, &[u8])]) -> io::Result<usize> {
    let local: Vec<_> = pieces.iter().map(|(_, bytes)| IoSlice::new(bytes)).collect();
    let there: Vec<_> = pieces
        .iter()
        .map(|&(address, bytes)| RemoteIoVec {
            base: usize::try_from(address).expect("addresses are 64 bits wide"),
            len: bytes.len(),
        })
        .collect();
    Ok(process_vm_writev(Pid::from_raw(pid), &local, &there)?)
}
