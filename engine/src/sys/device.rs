//! Network devices by name and index, in the network namespace that a socket belongs to:
//! netdevice(7).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

fn request() -> libc::ifreq {
    libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 },
    }
}

/// The name of a device, without the zero that ends it; ENODEV when there is none.
pub(crate) fn name(socket: BorrowedFd<'_>, index: u32) -> io::Result<Vec<u8>> {
    let mut request = request();
    request.ifr_ifru.ifru_ifindex = index.cast_signed();
    // SAFETY: SIOCGIFNAME reads and writes one `ifreq`, and `request` is one.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.ifr_name.iter().take_while(|&&byte| byte != 0);
    Ok(name.map(|byte| byte.cast_unsigned()).collect())
}

/// The index of the device with that name; ENODEV when there is none.
pub(crate) fn index(socket: BorrowedFd<'_>, name: &[u8]) -> io::Result<u32> {
    let mut request = request();
    if name.len() >= request.ifr_name.len() || name.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name) {
        *place = byte.cast_signed();
    }
    // SAFETY: SIOCGIFINDEX reads and writes one `ifreq`, and `request` is one.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel answered by writing the index.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    Ok(index.cast_unsigned())
}

/// IFF_UP, which `libc` has as another type.
#[cfg(test)]
const UP: libc::c_short = 1;

/// Switches a device on, in the network namespace of the socket.
#[cfg(test)]
pub(crate) fn set_up(socket: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let mut request = request();
    for (place, byte) in request.ifr_name.iter_mut().zip(name) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, and `request` is one.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
