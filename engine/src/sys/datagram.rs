//! Datagrams with what the kernel says beside them: recvmsg(2), sendto(2), cmsg(3).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// A datagram that stays in its queue.
#[derive(Debug)]
pub(crate) struct Peeked {
    /// Its real length, which may be more than there was room for.
    pub(crate) length: usize,
    /// `sockaddr` of the sender.
    pub(crate) sender: Vec<u8>,
    control: Vec<u8>,
}

impl Peeked {
    /// What is told beside it under that level and type, as far as there was room.
    pub(crate) fn beside(&self, level: i32, kind: i32) -> Option<&[u8]> {
        let mut rest = &self.control[..];
        while let Some((length, header)) = header(rest) {
            let part = rest.get(HEADER_BYTES..length)?;
            if header == (level, kind) {
                return Some(part);
            }
            rest = rest.get(length.next_multiple_of(8)..)?;
        }
        None
    }
}

/// `struct cmsghdr`: a length that includes it, the level and the type.
const HEADER_BYTES: usize = 16;

fn header(bytes: &[u8]) -> Option<(usize, (i32, i32))> {
    let number = |at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
    Some((length, (number(8)?, number(12)?))).filter(|_| length >= HEADER_BYTES)
}

const CONTROL_BYTES: usize = 1024;
const ADDRESS_BYTES: libc::socklen_t = 128;

/// Looks at the next datagram (at the one behind SO_PEEK_OFF) without waiting for one.
pub(crate) fn peek(socket: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<Peeked> {
    let mut sender = vec![0; ADDRESS_BYTES as usize];
    // Words, because the kernel's headers are aligned to them.
    let mut control = [0_u64; CONTROL_BYTES / 8];
    let mut part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let mut message = empty_message();
    message.msg_name = sender.as_mut_ptr().cast();
    message.msg_namelen = ADDRESS_BYTES;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: every part of `message` points to room of ours with the length beside it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    sender.truncate(message.msg_namelen as usize);
    let control = control.iter().flat_map(|word| word.to_ne_bytes());
    let control = control.take(message.msg_controllen).collect();
    Ok(Peeked { length, sender, control })
}

fn empty_message() -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

/// Sends one datagram, without waiting for room.
pub(crate) fn send_to(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    flags: i32,
    address: &[u8],
) -> io::Result<()> {
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let address_bytes = libc::socklen_t::try_from(address.len());
    let address_bytes = address_bytes.map_err(|_| io::ErrorKind::InvalidInput)?;
    let (at, to) = (bytes.as_ptr().cast(), address.as_ptr().cast());
    // SAFETY: both pointers lead to bytes of ours with the length beside them, only read.
    let sent =
        unsafe { libc::sendto(socket.as_raw_fd(), at, bytes.len(), flags, to, address_bytes) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
