//! What a listener and a caller have in common: a socket with QUIC on it, and what a handshake said.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{ConnectionError, Endpoint, TokioRuntime, TransportErrorCode};
use rustls::pki_types::CertificateDer;

use crate::{Fingerprint, LinkError, socket, tls, tuning};

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

/// The key that the peer proved in the handshake. Both verifiers demand one and have read it.
pub(crate) fn proven_key(quic: &quinn::Connection) -> Fingerprint {
    let identity = quic.peer_identity().expect("no handshake ends without the peer's key");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
    let chain = chain.expect("rustls identifies peers by certificates");
    Fingerprint::of(&chain[0]).expect("the verifier has read this certificate")
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

pub(crate) fn no_initial_suite() -> LinkError {
    LinkError::Tls(rustls::Error::General("no AES-128-GCM, with which QUIC begins".to_owned()))
}
