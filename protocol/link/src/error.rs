//! What can go wrong between two hosts, with what was being done and to whom.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectError, ConnectionError, ReadError, WriteError};

use crate::{Fingerprint, Refused, TrustFileError};

/// An error of the link. `Display` does not repeat the cause; it is the `source`.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The local address cannot be used.
    #[error("bind UDP {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Our own key cannot be used for TLS.
    #[error("set up TLS with our own key")]
    Tls(#[source] rustls::Error),
    /// The listener was closed from this side.
    #[error("the listener is closed")]
    ListenerClosed,
    /// The address cannot be connected to at all.
    #[error("connect to {host} at {address}")]
    Connect {
        /// Its name.
        host: String,
        /// Where it should be.
        address: SocketAddr,
        /// Why not.
        source: ConnectError,
    },
    /// Nobody answered.
    #[error("{host} does not answer at UDP {address} (waited {waited:?})")]
    Unreachable {
        /// Its name.
        host: String,
        /// Where it should be.
        address: SocketAddr,
        /// How long we waited.
        waited: Duration,
    },
    /// The peer has as many handshakes under way as it takes, and had as many each time we came.
    #[error(
        "{host} at {address} is busy with too many connections just now (tried for {tried:?}); \
         try again in a moment"
    )]
    Busy {
        /// Its name.
        host: String,
        /// Where it is.
        address: SocketAddr,
        /// How long we went on trying.
        tried: Duration,
    },
    /// The peer turned the connection away before it was established.
    #[error("{host} at {address} refused the connection (code {code}: {reason})")]
    Refused {
        /// Its name.
        host: String,
        /// Where it is.
        address: SocketAddr,
        /// A QUIC error code (RFC 9000 section 20.1).
        code: u64,
        /// The peer's words.
        reason: String,
    },
    /// We have no key for the host.
    #[error(
        "{host} is not in known_hosts; `migrate trust {host}` adds it, or, if its key is right, the \
         line: {host} {fingerprint}"
    )]
    UnknownHost {
        /// Its name.
        host: String,
        /// The key it showed. Not proven: compare it with `migrate identity` on that host.
        fingerprint: Fingerprint,
    },
    /// We have another key for the host.
    #[error(
        "the key of {host} is {fingerprint}, but known_hosts has {known:?}: \
         it was made anew, or somebody else answers at this address. If its operator says that the \
         key is right: migrate trust --replace {host}"
    )]
    ChangedHost {
        /// Its name.
        host: String,
        /// The key it showed.
        fingerprint: Fingerprint,
        /// The keys it should have.
        known: Vec<Fingerprint>,
    },
    /// What the host has shown is refused, whatever key it should have.
    #[error("{host} is not trusted with the key {fingerprint}")]
    Untrusted {
        /// Its name.
        host: String,
        /// The key it showed.
        fingerprint: Fingerprint,
        /// Why.
        source: Refused,
    },
    /// The destination refuses our key or our certificate.
    #[error("{host} does not accept us, as {fingerprint}: {reason}")]
    Rejected {
        /// Its name.
        host: String,
        /// Our own key.
        fingerprint: Fingerprint,
        /// The peer's words.
        reason: String,
    },
    /// The destination does not let us send there.
    #[error("{host} does not accept us; add to its authorized_hosts the line: {fingerprint}")]
    Unauthorised {
        /// Its name.
        host: String,
        /// Our own key.
        fingerprint: Fingerprint,
    },
    /// Somebody connected whose key or certificate is refused.
    #[error("{address} is turned away, as {fingerprint}")]
    TurnedAway {
        /// Where it came from.
        address: SocketAddr,
        /// The key it proved.
        fingerprint: Fingerprint,
        /// Why.
        source: Refused,
    },
    /// Somebody connected who may not send here.
    #[error("{address} is not in authorized_hosts; its key is {fingerprint}")]
    Stranger {
        /// Where it came from.
        address: SocketAddr,
        /// The key it proved.
        fingerprint: Fingerprint,
    },
    /// Somebody connected, and who may send here cannot be told.
    #[error("{address} is turned away, as {fingerprint}: nobody may send here")]
    Undecided {
        /// Where it came from.
        address: SocketAddr,
        /// The key it proved.
        fingerprint: Fingerprint,
        /// The file of trust that cannot be used.
        source: Box<TrustFileError>,
    },
    /// Somebody asked for our key, and goes no further with it.
    #[error(
        "{address} asked for the key of this host and went no further: `migrate trust`, or a source \
         that does not trust the key"
    )]
    TurnedDown {
        /// Where it came from.
        address: SocketAddr,
    },
    /// The peer has no version of the link in common with us.
    #[error("{address} speaks another version of the link than migrate/1")]
    VersionMismatch {
        /// Where it is.
        address: SocketAddr,
        /// How it was noticed.
        source: ConnectionError,
    },
    /// A client did not come through the handshake.
    #[error("shake hands with {address}")]
    Handshake {
        /// Where it came from.
        address: SocketAddr,
        /// Why not.
        source: ConnectionError,
    },
    /// The peer closed the connection.
    #[error("{action}: {address} closed the connection (code {code}: {reason})")]
    Closed {
        /// What was being done.
        action: &'static str,
        /// The peer.
        address: SocketAddr,
        /// What the peer gave to [`crate::Connection::close`]; 0 where it just let go.
        code: u64,
        /// The peer's words.
        reason: String,
    },
    /// The connection broke: the peer died, restarted or cannot be reached any more.
    #[error("{action}: the connection to {address} was lost")]
    Lost {
        /// What was being done.
        action: &'static str,
        /// The peer.
        address: SocketAddr,
        /// How it was noticed.
        source: ConnectionError,
    },
    /// We closed the connection, or this end of the stream, ourselves.
    #[error("{action}: closed from this side ({address})")]
    ClosedHere {
        /// What was being done.
        action: &'static str,
        /// The peer.
        address: SocketAddr,
    },
    /// The peer abandoned this one stream.
    #[error("{action}: {address} abandoned the stream (code {code})")]
    Abandoned {
        /// What was being done.
        action: &'static str,
        /// The peer.
        address: SocketAddr,
        /// Its reason.
        code: u64,
    },
    /// It took longer than the caller wanted to wait.
    #[error("{action}: {address} took longer than {waited:?}")]
    TimedOut {
        /// What was being done.
        action: &'static str,
        /// The peer.
        address: SocketAddr,
        /// How long we waited.
        waited: Duration,
    },
    /// A frame is longer than agreed.
    #[error("{action}: a frame of {bytes} bytes, but {bytes_max} are allowed ({address})")]
    FrameTooLong {
        /// What was being done.
        action: &'static str,
        /// The peer.
        address: SocketAddr,
        /// Its length.
        bytes: usize,
        /// What was agreed.
        bytes_max: usize,
    },
    /// The stream ended in the middle of a frame or of its head.
    #[error("{action}: the stream from {address} ended too early")]
    CutShort {
        /// What was being done.
        action: &'static str,
        /// The peer.
        address: SocketAddr,
    },
    /// A stream began with something else than its head.
    #[error("{action}: the stream from {address} begins with {head:02x?}")]
    BadHead {
        /// What was being done.
        action: &'static str,
        /// The peer.
        address: SocketAddr,
        /// The bytes in its place.
        head: [u8; 4],
    },
}

/// An action on a peer: what every error of an established connection names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doing {
    pub(crate) action: &'static str,
    pub(crate) address: SocketAddr,
}

impl Doing {
    pub(crate) fn lost(self, source: ConnectionError) -> LinkError {
        let Self { action, address } = self;
        match source {
            ConnectionError::ApplicationClosed(close) => LinkError::Closed {
                action,
                address,
                code: close.error_code.into_inner(),
                reason: words(&close.reason),
            },
            ConnectionError::LocallyClosed => LinkError::ClosedHere { action, address },
            source => LinkError::Lost { action, address, source },
        }
    }

    pub(crate) fn write_failed(self, error: WriteError) -> LinkError {
        match error {
            WriteError::ConnectionLost(source) => self.lost(source),
            WriteError::Stopped(code) => self.abandoned(code),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => self.closed_here(),
        }
    }

    pub(crate) fn read_failed(self, error: ReadError) -> LinkError {
        match error {
            ReadError::ConnectionLost(source) => self.lost(source),
            ReadError::Reset(code) => self.abandoned(code),
            _ => self.closed_here(),
        }
    }

    pub(crate) fn closed_here(self) -> LinkError {
        LinkError::ClosedHere { action: self.action, address: self.address }
    }

    pub(crate) fn abandoned(self, code: quinn::VarInt) -> LinkError {
        let Self { action, address } = self;
        LinkError::Abandoned { action, address, code: code.into_inner() }
    }

    pub(crate) fn cut_short(self) -> LinkError {
        LinkError::CutShort { action: self.action, address: self.address }
    }

    pub(crate) fn frame_too_long(self, bytes: usize, bytes_max: usize) -> LinkError {
        let Self { action, address } = self;
        LinkError::FrameTooLong { action, address, bytes, bytes_max }
    }

    /// Runs `future` for at most `wait`.
    pub(crate) async fn within<T>(
        self,
        wait: Duration,
        future: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        let Self { action, address } = self;
        tokio::time::timeout(wait, future).await.unwrap_or(Err(LinkError::TimedOut {
            action,
            address,
            waited: wait,
        }))
    }
}

/// A peer's words, fit for a terminal: control characters could rewrite what the operator sees.
pub(crate) fn words(reason: &[u8]) -> String {
    String::from_utf8_lossy(reason).chars().filter(|c| !c.is_control()).take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_cannot_steer_the_terminal() {
        assert_eq!(words(b"no\x1b[2J\r\nroom \xff"), "no[2Jroom \u{fffd}");
        assert_eq!(words(&[b'x'; 1000]).len(), 256);
    }
}
