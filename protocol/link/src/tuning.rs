//! How much a connection may hold and how long it may be silent.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::path;

/// Streams a peer may have open at once: the bulk streams of one move, and room for a next one.
const STREAMS_MAX: u32 = 64;

const MIB: u32 = 1 << 20;

/// RFC 9000.
const QUIC_VERSION: u32 = 1;

/// How a sender finds out what the path carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// Grows until packets are lost. The default: on loopback 1.0-1.25 GB/s in every run, where the
    /// other one had 0.45-0.95 with thousands of packets lost in a third of them.
    Cubic,
    /// Models bandwidth and delay, and does not take a loss for a full path: for long, lossy ways.
    Bbr,
}

impl Congestion {
    fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::Bbr => Arc::new(BbrConfig::default()),
        }
    }
}

/// The bounds of one connection. Each side holds to its own.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Bytes sent and not yet acknowledged; more make the sender wait.
    pub send_bytes_max: u32,
    /// Bytes received and not yet read, over all streams; more make the peer wait.
    pub receive_bytes_max: u32,
    /// The same for one stream, so that one that nobody reads does not stop the others.
    pub stream_receive_bytes_max: u32,
    /// How long a silent peer is believed to live. The smaller one of both sides counts.
    pub idle_timeout: Duration,
    /// A ping is sent after this much silence; well under `idle_timeout`, or idle peers are lost.
    pub keep_alive: Duration,
    /// How long connecting may take, the destination's welcome included.
    pub handshake_wait: Duration,
    /// How the sender finds its rate.
    pub congestion: Congestion,
}

impl Tuning {
    /// For memory on its way: fills a long fat path (4 Gbit/s at 30 ms). What is received and not read
    /// takes up to three times its size, in the packets that it came in: 96 MiB at 24 MiB.
    pub fn bulk() -> Self {
        Self {
            send_bytes_max: 24 * MIB,
            receive_bytes_max: 16 * MIB,
            stream_receive_bytes_max: 12 * MIB,
            idle_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(2),
            handshake_wait: Duration::from_secs(10),
            congestion: Congestion::Cubic,
        }
    }

    /// For pages that somebody waits for: a small window, so that no queue builds up before them,
    /// and a loss is noticed sooner, because a program stands still until it is.
    pub fn faults() -> Self {
        Self {
            send_bytes_max: MIB,
            receive_bytes_max: MIB,
            stream_receive_bytes_max: MIB,
            idle_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            ..Self::bulk()
        }
    }

    /// `payload_max`: UDP payload, in bytes, above which no packet size is tried.
    pub(crate) fn transport(&self, payload_max: u16) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        transport
            .send_window(self.send_bytes_max.into())
            .receive_window(VarInt::from_u32(self.receive_bytes_max))
            .stream_receive_window(VarInt::from_u32(self.stream_receive_bytes_max))
            .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
            .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
            .max_idle_timeout(Some(milliseconds(self.idle_timeout)))
            .keep_alive_interval(Some(self.keep_alive))
            .initial_mtu(path::PAYLOAD_FIRST)
            .mtu_discovery_config(Some(mtu_discovery(payload_max)))
            .congestion_controller_factory(self.congestion.factory())
            // Nobody here sends datagrams; not announcing them frees their buffer.
            .datagram_receive_buffer_size(None);
        Arc::new(transport)
    }
}

fn mtu_discovery(payload_max: u16) -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    // Lost packets may look like a path that shrank. Ten minutes of small packets would be the price.
    discovery.upper_bound(payload_max).black_hole_cooldown(Duration::from_secs(2));
    discovery
}

/// A timeout that QUIC cannot write (above 2^62 ms) means the same as the longest it can.
fn milliseconds(timeout: Duration) -> IdleTimeout {
    timeout.try_into().unwrap_or_else(|_| VarInt::MAX.into())
}

/// The peer may only send what this side says it takes, so both must say it.
pub(crate) fn endpoint() -> EndpointConfig {
    let mut endpoint = EndpointConfig::default();
    endpoint
        .max_udp_payload_size(path::PAYLOAD_MAX)
        .expect("6500 is between QUIC's 1200 and UDP's 65527");
    // quinn speaks drafts as well, down to 29, and nobody needs them.
    endpoint.supported_versions(vec![QUIC_VERSION]);
    endpoint
}
