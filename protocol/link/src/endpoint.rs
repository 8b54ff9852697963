//! What a listener and a caller have in common: a socket with QUIC on it, and what a handshake said.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{ConnectionError, Endpoint, TokioRuntime, TransportErrorCode};
use rustls::pki_types::CertificateDer;

use crate::{Credentials, LinkError, socket, tls, tuning};

/// QUIC at UDP `address`; takes connections only where `server` says how.
pub(crate) fn bind(
    address: SocketAddr,
    server: Option<quinn::ServerConfig>,
) -> Result<Endpoint, LinkError> {
    socket::bind(address)
        .and_then(|socket| {
            Endpoint::new(tuning::endpoint(), server, socket, Arc::new(TokioRuntime))
        })
        .map_err(|source| LinkError::Bind { address, source })
}

/// What the peer showed in the handshake; that it holds the key is proven. Both verifiers demand it
/// and have read it.
pub(crate) fn shown(quic: &quinn::Connection) -> Credentials {
    let identity = quic.peer_identity().expect("no handshake ends without the peer's key");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
    let chain = chain.expect("rustls identifies peers by certificates");
    Credentials::new(&chain[0], &chain[1..]).expect("the verifier has read these certificates")
}

/// Either side may be the one that notices, and QUIC has a version below ours.
pub(crate) fn is_version_mismatch(source: &ConnectionError) -> bool {
    let alert = TransportErrorCode::crypto(tls::ALERT_NO_COMMON_VERSION);
    match source {
        ConnectionError::VersionMismatch => true,
        ConnectionError::TransportError(error) => error.code == alert,
        ConnectionError::ConnectionClosed(close) => close.error_code == alert,
        _ => false,
    }
}

/// The peer has seen our key and goes no further: it only wanted to see it, or does not trust it.
pub(crate) fn is_turned_down(source: &ConnectionError) -> bool {
    let alert = TransportErrorCode::crypto(tls::ALERT_TURNED_DOWN);
    matches!(source, ConnectionError::ConnectionClosed(close) if close.error_code == alert)
}

/// The peer has more handshakes under way, or of us, than it takes.
pub(crate) fn is_busy(source: &ConnectionError) -> bool {
    let refused = TransportErrorCode::CONNECTION_REFUSED;
    matches!(source, ConnectionError::ConnectionClosed(close) if close.error_code == refused)
}

pub(crate) fn no_initial_suite() -> LinkError {
    LinkError::Tls(rustls::Error::General("no AES-128-GCM, with which QUIC begins".to_owned()))
}
