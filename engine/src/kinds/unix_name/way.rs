//! The way to a socket that is bound, whatever became of its name.

use super::Name;
use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Whether a socket is bound to this file. Nobody notices being asked by a datagram socket.
pub(super) fn is_used(file: &File) -> io::Result<bool> {
    let probe = sys::sock::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
    let refused = sys::sock::connect(probe.as_fd(), &address_of(file.as_fd())?);
    Ok(!refused.is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED)))
}

/// The name of a socket's file, for whoever may look into our descriptors: it leads to the very
/// file, wherever that is.
fn address_of(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Name { bytes: path.into_bytes(), file: None }.address()
}

/// Leads to a socket that is bound, whatever became of its name, for as long as this lives.
#[derive(Debug)]
pub(in crate::kinds) struct Way {
    pub(in crate::kinds) address: Vec<u8>,
    _file: Option<OwnedFd>,
}

impl Way {
    pub(in crate::kinds) fn to(socket: BorrowedFd<'_>) -> io::Result<Self> {
        match sys::sock::file_of(socket) {
            Ok(file) => Ok(Self { address: address_of(file.as_fd())?, _file: Some(file) }),
            // An abstract name.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(Self { address: sys::sock::local_address(socket)?, _file: None })
            }
            Err(error) => Err(error),
        }
    }
}
