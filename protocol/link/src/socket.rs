//! The UDP socket under a connection, with buffers that survive a burst.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};

/// At the kernel's default of 208 KiB, 2000 to 5000 packets of each GiB were lost on loopback.
/// The kernel doubles what it is given, for its own bookkeeping (socket(7)).
const BUFFER_BYTES: usize = 8 << 20;

/// Binds `address`; a buffer that may not be that large is as large as it may be.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    enlarge_receive(&socket)?;
    enlarge_send(&socket)?;
    Ok(socket)
}

/// FORCE ignores net.core.rmem_max and needs CAP_NET_ADMIN; without it, the limit cuts silently.
fn enlarge_receive(socket: &UdpSocket) -> io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &BUFFER_BYTES)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &BUFFER_BYTES))?;
    Ok(())
}

/// As [`enlarge_receive`], with net.core.wmem_max.
fn enlarge_send(socket: &UdpSocket) -> io::Result<()> {
    setsockopt(socket, sockopt::SndBufForce, &BUFFER_BYTES)
        .or_else(|_| setsockopt(socket, sockopt::SndBuf, &BUFFER_BYTES))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn has_large_buffers_where_we_are_root() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not run: only root may exceed net.core.rmem_max");
            return;
        }
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(getsockopt(&socket, sockopt::RcvBuf).unwrap() >= BUFFER_BYTES);
        assert!(getsockopt(&socket, sockopt::SndBuf).unwrap() >= BUFFER_BYTES);
    }
}
