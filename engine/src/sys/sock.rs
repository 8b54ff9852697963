//! Sockets by number: options and addresses as the bytes the kernel keeps, so that what we do not
//! know we can still carry.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Room for the address of any family: `sockaddr_storage`.
const ADDRESS_BYTES_MAX: usize = 128;

pub(super) fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn length(bytes: &[u8]) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A new socket, close-on-exec.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes three integers.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Two sockets joined to each other, close-on-exec.
pub(crate) fn pair(domain: i32, kind: i32) -> io::Result<[OwnedFd; 2]> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` is the two-element array that socketpair(2) fills.
    check(unsafe { libc::socketpair(domain, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both numbers are new descriptors of ours.
    Ok(ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) }))
}

/// getsockopt(2): how many bytes of `room` the kernel filled.
pub(crate) fn read_option(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    room: &mut [u8],
) -> io::Result<usize> {
    let mut filled = length(room)?;
    let at = room.as_mut_ptr().cast();
    // SAFETY: `at` points to `filled` bytes that we may write.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, at, &raw mut filled) })?;
    Ok(filled as usize)
}

pub(crate) fn read_number(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut room = [0; 4];
    read_option(socket, level, name, &mut room)?;
    Ok(i32::from_ne_bytes(room))
}

pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &[u8],
) -> io::Result<()> {
    let bytes = length(value)?;
    let at = value.as_ptr().cast();
    // SAFETY: `at` points to `bytes` bytes, and the kernel only reads them.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, at, bytes) }).map(drop)
}

pub(crate) fn set_number(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: i32,
) -> io::Result<()> {
    set_option(socket, level, name, &value.to_ne_bytes())
}

type AddressCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn read_address(socket: BorrowedFd<'_>, call: AddressCall) -> io::Result<Vec<u8>> {
    let mut room = vec![0; ADDRESS_BYTES_MAX];
    let mut filled = length(&room)?;
    let at = room.as_mut_ptr().cast();
    // SAFETY: `at` points to `filled` bytes; every address the kernel has is shorter.
    check(unsafe { call(socket.as_raw_fd(), at, &raw mut filled) })?;
    room.truncate(filled as usize);
    Ok(room)
}

/// getsockname(2), as a `sockaddr` of its real length.
pub(crate) fn local_address(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    read_address(socket, libc::getsockname)
}

/// getpeername(2); `None` when the socket is not connected.
pub(crate) fn peer_address(socket: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    match read_address(socket, libc::getpeername) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(None),
        read => read.map(Some),
    }
}

pub(crate) fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    let bytes = length(address)?;
    let at = address.as_ptr().cast();
    // SAFETY: `at` points to `bytes` bytes, and the kernel checks what they mean.
    check(unsafe { libc::bind(socket.as_raw_fd(), at, bytes) }).map(drop)
}

pub(crate) fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    let bytes = length(address)?;
    let at = address.as_ptr().cast();
    // SAFETY: `at` points to `bytes` bytes, and the kernel checks what they mean.
    check(unsafe { libc::connect(socket.as_raw_fd(), at, bytes) }).map(drop)
}

pub(crate) fn listen(socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: listen(2) takes two integers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

pub(crate) fn accept(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let nowhere = std::ptr::null_mut();
    let flags = libc::SOCK_CLOEXEC;
    // SAFETY: accept4(2) writes no address when there is no room for one.
    let ret = unsafe { libc::accept4(socket.as_raw_fd(), nowhere, std::ptr::null_mut(), flags) };
    let fd = check(ret)?;
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `linux/un.h`: the file of a unix socket that is bound to a path (Linux 4.16).
const SIOCUNIXFILE: u64 = 0x89e0;
const SIOCATMARK: u64 = 0x8905;

/// The socket file that a unix socket was bound to, as a place (O_PATH), also when its path leads
/// elsewhere by now; ENOENT when it has none.
pub(crate) fn file_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: SIOCUNIXFILE takes no argument and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE) })?;
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket that this group may make and we may not, such as one for pings.
pub(crate) fn socket_as(
    domain: i32,
    kind: i32,
    protocol: i32,
    uid: u32,
    gid: u32,
) -> io::Result<OwnedFd> {
    let made = std::thread::spawn(move || {
        become_user(uid, gid)?;
        socket(domain, kind, protocol)
    });
    made.join().map_err(|_| io::Error::other("the thread that made a socket panicked"))?
}

/// Changes this thread only: the C library's wrappers would change every thread of the process.
fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let keep = u32::MAX;
    // SAFETY: setresgid(2) takes three integers; the thread is ours and ends after one call.
    let ret = unsafe { libc::syscall(libc::SYS_setresgid, keep, gid, keep) };
    check(libc::c_int::try_from(ret).unwrap_or(-1))?;
    // SAFETY: as above, for setresuid(2).
    let ret = unsafe { libc::syscall(libc::SYS_setresuid, keep, uid, keep) };
    check(libc::c_int::try_from(ret).unwrap_or(-1)).map(drop)
}

/// Whether the next byte to be read is the urgent one: sockatmark(3).
pub(crate) fn is_at_urgent_mark(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut answer: libc::c_int = 0;
    // SAFETY: SIOCATMARK writes one int, which `answer` is.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCATMARK, &raw mut answer) })?;
    Ok(answer != 0)
}

/// SIOCGSKNS of linux/sockios.h.
const NAMESPACE_OF_SOCKET: libc::c_ulong = 0x894c;

/// The network namespace that a socket is in, which may be another than that of whoever has it:
/// Linux 4.9, needs CAP_NET_ADMIN there.
pub(crate) fn namespace(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(socket.as_raw_fd(), NAMESPACE_OF_SOCKET) })?;
    // SAFETY: `fd` was just returned to us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
