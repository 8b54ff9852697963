//! The UDP socket under a connection, with buffers that survive a burst.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tracing::warn;

/// At the kernel's default of 208 KiB, 2000 to 5000 packets of each GiB were lost on loopback.
/// The kernel doubles what it is given, for its own bookkeeping (socket(7)).
const BUFFER_BYTES: usize = 8 << 20;

/// Below this, bursts are lost and the rate collapses, so the operator should know.
const BUFFER_BYTES_MIN: usize = 4 << 20;

/// Binds `address`; a buffer that may not be that large is as large as it may be.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    enlarge_receive(&socket)?;
    enlarge_send(&socket)?;
    warn_if_small(&socket)?;
    Ok(socket)
}

fn warn_if_small(socket: &UdpSocket) -> io::Result<()> {
    let receive = getsockopt(socket, sockopt::RcvBuf)?;
    let send = getsockopt(socket, sockopt::SndBuf)?;
    if receive.min(send) < BUFFER_BYTES_MIN {
        warn!(receive, send, "small UDP buffers; raise net.core.rmem_max and net.core.wmem_max");
    }
    Ok(())
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
