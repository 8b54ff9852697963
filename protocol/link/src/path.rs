//! How large a packet the way to a peer carries, found out before anybody is in a hurry.
//!
//! A packet costs about the same whatever its size, so 1200 bytes instead of 6500 means a third of
//! the throughput. quinn 0.11 probes for larger packets only when it has nothing else to send, and
//! goes by halves: told to try 6500 on Ethernet, its first four probes are lost, and once pages flow
//! without a gap it never probes again (seen: 256 MiB at 1200 bytes each, in every run). So we ask
//! the kernel first what the interface takes, and let the probes finish before the first page.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::time::{Instant, sleep};

/// The largest UDP payload, in bytes, that is ever tried.
///
/// Segmentation offload hands the kernel ten packets at once and 65507 bytes are all that one call
/// takes. Above 6550 that call fails with EMSGSIZE, which quinn-udp 0.5 drops without a word: the
/// connection hangs (seen at 6553 and 8952).
pub(crate) const PAYLOAD_MAX: u16 = 6500;

/// Passes everywhere that QUIC does (RFC 9000 section 14).
pub(crate) const PAYLOAD_FIRST: u16 = 1200;

/// What an IPv4 and a UDP header take of a packet.
const HEADERS_V4: i32 = 20 + 8;
/// Ethernet's 1500 less an IPv6 and a UDP header. The kernel would tell (IPV6_MTU), `nix` cannot ask.
const PAYLOAD_V6: u16 = 1500 - 40 - 8;

/// quinn stops the search when the next step would gain less than this.
const STEP: u16 = 20;
/// Enough for nine probes at a round trip of 30 ms. On a longer way the congestion window leaves
/// the gaps that probes need, and what was not found by then is found later.
const SETTLE_WAIT: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(1);

/// The largest payload worth trying towards `peer`: what the interface there takes (ip(7), IP_MTU).
pub(crate) fn payload_max(peer: SocketAddr) -> u16 {
    if peer.is_ipv6() {
        return PAYLOAD_V6;
    }
    let first = i32::from(PAYLOAD_FIRST);
    let payload = route_mtu(peer).map_or(first, |mtu| mtu - HEADERS_V4);
    u16::try_from(payload.max(first)).unwrap_or(PAYLOAD_MAX).min(PAYLOAD_MAX)
}

/// Connecting a UDP socket sends nothing; it only picks the route.
fn route_mtu(peer: SocketAddr) -> Option<i32> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(peer).ok()?;
    getsockopt(&socket, sockopt::IpMtu).ok()
}

/// Waits until the search for the packet size is near `payload_max`, or has had its time.
pub(crate) async fn settle(quic: &quinn::Connection, payload_max: u16) {
    let end = Instant::now() + SETTLE_WAIT;
    let enough = payload_max.saturating_sub(STEP);
    while quic.stats().path.current_mtu < enough && Instant::now() < end {
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_takes_the_largest_that_we_try() {
        assert_eq!(payload_max("127.0.0.1:9".parse().unwrap()), PAYLOAD_MAX);
    }
}
