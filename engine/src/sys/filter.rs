//! Classic packet filters: SO_ATTACH_FILTER of socket(7). Their option counts instructions where
//! others count bytes, and is told an address where others are told a value.

use super::sock::read_option;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `struct sock_filter`: linux/filter.h.
const INSTRUCTION_BYTES: usize = 8;
/// BPF_MAXINSNS: linux/bpf_common.h.
const INSTRUCTIONS_MAX: libc::socklen_t = 4096;

/// SO_GET_FILTER, which has the number of SO_ATTACH_FILTER: the program as it was attached. Empty
/// when there is none; EACCES when it is an eBPF one.
pub(crate) fn read(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let count = read_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &mut [])?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut program = vec![0; INSTRUCTIONS_MAX as usize * INSTRUCTION_BYTES];
    let mut filled = INSTRUCTIONS_MAX;
    let (level, name, at) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program.as_mut_ptr().cast());
    // SAFETY: `at` has room for `filled` instructions, which is what the kernel counts here.
    let ret = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, at, &raw mut filled) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    program.truncate(filled as usize * INSTRUCTION_BYTES);
    Ok(program)
}

/// Attaches a program of whole instructions; EINVAL when the kernel does not accept it.
pub(crate) fn attach(socket: BorrowedFd<'_>, program: &[u8]) -> io::Result<()> {
    let instructions: Vec<u64> = program
        .chunks_exact(INSTRUCTION_BYTES)
        .map(|one| one.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
        .collect();
    let is_whole = instructions.len() * INSTRUCTION_BYTES == program.len();
    if !is_whole || instructions.len() > INSTRUCTIONS_MAX as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a packet filter"));
    }
    let len = libc::c_ushort::try_from(instructions.len()).unwrap_or(libc::c_ushort::MAX);
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut().cast() };
    let (at, bytes) = (
        (&raw const program).cast(),
        libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0),
    );
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // SAFETY: `at` is a `sock_fprog` whose `filter` has `len` instructions; the kernel only reads.
    let ret = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, at, bytes) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An eBPF program that lets nothing pass: bpf(2). `None` when this kernel, or its policy, loads
/// none.
#[cfg(test)]
pub(crate) fn ebpf() -> Option<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd as _;
    const BPF_PROG_LOAD: libc::c_long = 5;
    const SOCKET_FILTER: u64 = 1;
    // r0 = 0; exit.
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let at = [instructions.as_ptr() as u64, license.as_ptr() as u64];
    let request: [u64; 6] = [SOCKET_FILTER | 2 << 32, at[0], at[1], 0, 0, 0];
    let (from, bytes) = (request.as_ptr(), size_of_val(&request));
    // SAFETY: `request` is a `bpf_attr` whose addresses lead to two instructions and a string.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, from, bytes) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Some(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}
