//! A classic packet filter: SO_ATTACH_FILTER of socket(7). The kernel gives back the program as it
//! was attached; what it does not give back is refused.

use crate::sys;
use std::io;
use std::os::fd::BorrowedFd;

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Filter {
    /// `struct sock_filter`, 8 bytes an instruction; empty when there is none.
    #[prost(bytes = "vec", tag = "1")]
    program: Vec<u8>,
    /// SO_LOCK_FILTER: nobody can change it, or attach one, any more.
    #[prost(bool, tag = "2")]
    locked: bool,
}

impl Filter {
    pub(super) fn read(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let program = sys::filter::read(socket)?;
        let locked = sys::sock::read_number(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER)? != 0;
        Ok((locked || !program.is_empty()).then_some(Self { program, locked }))
    }

    pub(super) fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        match self.program.is_empty() {
            true => detach(socket)?,
            false => sys::filter::attach(socket, &self.program)?,
        }
        if self.locked {
            sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)?;
        }
        Ok(())
    }
}

/// Fine as well when there is none, and where there can be none (Multipath TCP).
pub(super) fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    match sys::sock::set_number(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Whether packets pass an eBPF program first, which the kernel does not give back.
pub(super) fn is_unreadable(socket: BorrowedFd<'_>) -> bool {
    sys::filter::read(socket).is_err_and(|error| error.raw_os_error() == Some(libc::EACCES))
}
