//! One message of a unix socket with what travels beside its bytes: unix(7).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// `struct ucred`: who sent a message, as the kernel vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A message that was looked at and is still there.
#[derive(Debug)]
pub(crate) struct Peeked {
    /// Bytes of the message; more than the buffer has when it did not fit.
    pub(crate) length: usize,
    /// The sender's name, as a `sockaddr`; empty for a stream.
    pub(crate) sender: Vec<u8>,
    /// Our own duplicates of what is in flight.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// `None` when the socket does not ask for them, or nobody has sent any.
    pub(crate) credentials: Option<Credentials>,
}

/// Room for SCM_MAX_FD descriptors (253), credentials and a security label.
const CONTROL_BYTES: usize = 4096;
const ADDRESS_BYTES_MAX: usize = 128;
/// `cmsghdr`: a length of 8 bytes, level, type.
const HEADER_BYTES: usize = 16;

/// Looks at the next message without taking it. The descriptors in it become ours too, so that
/// what nobody else has open can be seen.
pub(crate) fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Peeked> {
    let mut address = [0u8; ADDRESS_BYTES_MAX];
    let mut control = [0u64; CONTROL_BYTES / 8];
    let mut part = [libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }];
    let mut message = header(&mut part);
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = 128;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: every pointer of `message` leads to as much memory of ours as the length beside it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let control: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let control = control.get(..message.msg_controllen).unwrap_or_default();
    let (descriptors, credentials) = read_control(control);
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    let named = (message.msg_namelen as usize).min(ADDRESS_BYTES_MAX);
    Ok(Peeked { length, sender: address[..named].to_vec(), descriptors, credentials })
}

/// How many bytes of a stream have room in the buffer, if each part that was sent with one call
/// counts whole or not at all: 0 when the first does not fit.
///
/// A part is copied at once, and the copy of one that reaches beyond the buffer, where nothing can
/// be written, fails without a trace. What is in flight does not come with it.
pub(crate) fn whole_parts(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let room = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
    let mut parts = [room, nothing];
    let mut message = header(&mut parts);
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the first part is memory of ours; the kernel checks the second, and fails.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    match usize::try_from(length).map_err(|_| io::Error::last_os_error()) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(0),
        length => length,
    }
}

/// What goes with the bytes of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Along<'a> {
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
    /// Root may name any living process.
    pub(crate) credentials: Option<Credentials>,
    /// Where it goes, for a socket that is not connected to it; as `sockaddr`.
    pub(crate) to: Option<&'a [u8]>,
    /// MSG_OOB or nothing.
    pub(crate) flags: i32,
}

/// Sends a message without waiting for room.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], along: Along<'_>) -> io::Result<usize> {
    let mut control = control_of(&along);
    let mut part =
        [libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }];
    let mut message = header(&mut part);
    if let Some(to) = along.to {
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen =
            libc::socklen_t::try_from(to.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    if !control.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len() * 8;
    }
    let flags = along.flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: every pointer of `message` leads to memory of ours that the kernel only reads.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn control_of(along: &Along<'_>) -> Vec<u64> {
    let mut control = Vec::new();
    let (descriptors, credentials) = (along.descriptors, along.credentials);
    if !descriptors.is_empty() {
        let numbers = descriptors.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes());
        write_control(&mut control, libc::SCM_RIGHTS, &numbers.collect::<Vec<_>>());
    }
    if let Some(Credentials { pid, uid, gid }) = credentials {
        let words = [pid.cast_unsigned(), uid, gid];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        write_control(&mut control, libc::SCM_CREDENTIALS, &bytes);
    }
    control
}

fn header(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a `msghdr` is integers and pointers, all of which may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len();
    message
}

/// Appends a `cmsghdr` and its bytes, in the words that its alignment asks for.
fn write_control(control: &mut Vec<u64>, kind: i32, bytes: &[u8]) {
    let mut block = (HEADER_BYTES + bytes.len()).to_ne_bytes().to_vec();
    block.extend(libc::SOL_SOCKET.to_ne_bytes());
    block.extend(kind.to_ne_bytes());
    block.extend(bytes);
    block.resize(block.len().next_multiple_of(8), 0);
    let word = |eight: &[u8]| u64::from_ne_bytes(eight.try_into().unwrap_or_default());
    control.extend(block.chunks(8).map(word));
}

/// SCM_PIDFD (Linux 6.5): newer than `libc`'s list. It brings a descriptor that was not in flight.
const SCM_PIDFD: i32 = 4;

fn read_control(mut control: &[u8]) -> (Vec<OwnedFd>, Option<Credentials>) {
    let (mut descriptors, mut credentials) = (Vec::new(), None);
    while let Some((kind, bytes, rest)) = next_block(control) {
        match kind {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => descriptors.extend(words(bytes).map(own)),
            (libc::SOL_SOCKET, SCM_PIDFD) => words(bytes).map(own).for_each(drop),
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                let all: Vec<u32> = words(bytes).map(i32::cast_unsigned).collect();
                if let [pid, uid, gid] = all[..]
                    && pid != 0
                {
                    credentials = Some(Credentials { pid: pid.cast_signed(), uid, gid });
                }
            }
            _ => {}
        }
        control = rest;
    }
    (descriptors, credentials)
}

/// What came along: level and type, bytes, what follows.
type Block<'a> = ((i32, i32), &'a [u8], &'a [u8]);

fn next_block(control: &[u8]) -> Option<Block<'_>> {
    let length = usize::from_ne_bytes(control.get(..8)?.try_into().ok()?);
    let level = i32::from_ne_bytes(control.get(8..12)?.try_into().ok()?);
    let kind = i32::from_ne_bytes(control.get(12..16)?.try_into().ok()?);
    let bytes = control.get(HEADER_BYTES..length)?;
    let rest = control.get(length.next_multiple_of(8)..).unwrap_or_default();
    Some(((level, kind), bytes, rest))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = i32> + '_ {
    bytes.chunks_exact(4).map(|four| i32::from_ne_bytes(four.try_into().unwrap_or_default()))
}

fn own(number: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just put it into our table, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sock;
    use std::os::fd::AsFd as _;

    #[test]
    fn descriptors_and_credentials_are_seen_and_stay_there() {
        let [one, two] = sock::pair(libc::AF_UNIX, libc::SOCK_STREAM).unwrap();
        sock::set_number(two.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1).unwrap();
        let pid = std::process::id().cast_signed();
        let forged = Credentials { pid, uid: 1234, gid: 5678 };
        let flight = [one.as_fd(), two.as_fd()];
        let along = Along { descriptors: &flight, credentials: Some(forged), ..Along::default() };
        send(one.as_fd(), b"hello", along).unwrap();
        for _ in 0..2 {
            let mut room = [0; 100];
            let peeked = peek(two.as_fd(), &mut room).unwrap();
            assert_eq!((peeked.length, peeked.descriptors.len()), (5, 2));
            assert_eq!(peeked.credentials, Some(forged));
        }
    }
}
