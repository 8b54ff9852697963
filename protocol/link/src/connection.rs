//! One connection between two hosts that know each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, VarInt};

use crate::error::Doing;
use crate::{BulkReceiver, BulkSender, Control, Fingerprint, KnownHosts, LinkError};

/// Codes for [`Connection::close`] begin here; smaller ones are the link's own.
pub const CALLER_CODES: u32 = 16;

/// The peer's key is not listed. Comes with the words that say so.
pub(crate) const UNAUTHORISED: VarInt = VarInt::from_u32(1);
/// The peer's key or certificate is refused for another reason, which the words say.
pub(crate) const REFUSED: VarInt = VarInt::from_u32(2);

/// An established connection; the peer has proven its key and both sides accept each other.
///
/// Clones are the same connection. When the last one and the last stream are dropped, it closes
/// with code 0.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(crate) quic: quinn::Connection,
    pub(crate) endpoint: Endpoint,
    pub(crate) host: String,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) names: Vec<String>,
    /// By which a second connection is judged; of nobody on the side that was called.
    pub(crate) known: Arc<KnownHosts>,
}

impl Connection {
    /// The key of the peer.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The names that a CA has certified for a source, in the certificate's order: those that its
    /// `@cert-authority` line allows. Empty where its key is listed by itself.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where the peer is.
    pub fn address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// The current estimate of the round-trip time.
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// Opens a control stream for frames of at most `frame_bytes_max` bytes and waits until the peer
    /// has accepted it. `index` tells the peer which one it is.
    pub async fn open_control(
        &self,
        index: u16,
        frame_bytes_max: usize,
        wait: Duration,
    ) -> Result<Control, LinkError> {
        let doing = self.doing("open a control stream");
        doing.within(wait, Control::open(&self.quic, doing, index, frame_bytes_max)).await
    }

    /// The next control stream that the peer opens. Cancelled, it may lose the stream.
    pub async fn accept_control(
        &self,
        frame_bytes_max: usize,
        wait: Duration,
    ) -> Result<Control, LinkError> {
        let doing = self.doing("accept a control stream");
        doing.within(wait, Control::accept(&self.quic, doing, frame_bytes_max)).await
    }

    /// Opens a bulk stream. `index` tells the peer which one it is; streams may arrive in any order.
    pub async fn open_bulk(&self, index: u16, wait: Duration) -> Result<BulkSender, LinkError> {
        let doing = self.doing("open a bulk stream");
        doing.within(wait, BulkSender::open(&self.quic, doing, index)).await
    }

    /// The next bulk stream that the peer opens. Cancelled, it may lose the stream.
    pub async fn accept_bulk(&self, wait: Duration) -> Result<BulkReceiver, LinkError> {
        let doing = self.doing("accept a bulk stream");
        doing.within(wait, BulkReceiver::accept(&self.quic, doing)).await
    }

    /// Changes how many bytes may be sent and not yet acknowledged. Small keeps queues short.
    pub fn set_send_bytes_max(&self, bytes: u32) {
        self.quic.set_send_window(bytes.into());
    }

    /// Whether it has ended already.
    pub fn is_closed(&self) -> bool {
        self.quic.close_reason().is_some()
    }

    /// Waits until the connection ends, for whatever reason.
    pub async fn closed(&self) -> LinkError {
        self.doing("watch the connection").lost(self.quic.closed().await)
    }

    /// Tells the peer why, and ends everything on this connection at once. What is still in the
    /// windows is dropped: finish the streams first. `code` is at least [`CALLER_CODES`].
    pub fn close(&self, code: u32, reason: &str) {
        assert!(code >= CALLER_CODES, "codes below {CALLER_CODES} are the link's own: {code}");
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// After [`Self::close`]: waits until the peer has been told, at most `wait`. A process that
    /// ends sooner leaves the peer to find out by its idle timeout.
    ///
    /// For the side that connected: it waits for every connection of the socket, which on a listener
    /// are those of other sources too. A listener lives on and needs no such wait.
    pub async fn drain(&self, wait: Duration) -> Result<(), LinkError> {
        let told = async {
            self.endpoint.wait_idle().await;
            Ok(())
        };
        self.doing("say goodbye").within(wait, told).await
    }

    /// What the connection has moved and lost so far.
    pub fn stats(&self) -> Stats {
        let stats = self.quic.stats();
        Stats {
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            congestion_events: stats.path.congestion_events,
            window_bytes: stats.path.cwnd,
            mtu_bytes: stats.path.current_mtu,
            black_holes: stats.path.black_holes_detected,
            rtt: stats.path.rtt,
        }
    }

    fn doing(&self, action: &'static str) -> Doing {
        Doing { action, address: self.address() }
    }
}

/// Counters of one connection since it was made, as this side sees it.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    /// UDP payload sent: content, framing, encryption and repetitions.
    pub sent_bytes: u64,
    /// UDP payload received.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets sent that did not arrive; their content was sent again.
    pub lost_packets: u64,
    /// How often the sender slowed down.
    pub congestion_events: u64,
    /// What the congestion control lets be under way now.
    pub window_bytes: u64,
    /// UDP payload that fits into one packet on this path.
    pub mtu_bytes: u16,
    /// How often packets of that size stopped coming through, so that smaller ones were sent.
    pub black_holes: u64,
    /// The current estimate of the round-trip time.
    pub rtt: Duration,
}
