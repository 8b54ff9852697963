//! TLS 1.3 in which both sides prove a key and nothing else of a certificate counts.
//!
//! Names, dates and issuers are not looked at: a host *is* its key, as with SSH. What is always
//! checked is the signature over the handshake, which proves that the peer holds the private key of
//! the certificate it showed. The source knows before the handshake which keys are right and stops
//! there; the destination takes any key that is proven and decides afterwards, so that it can tell
//! a stranger why it is turned away (a TLS alert carries a number only).

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use crate::{Fingerprint, Identity};

/// What both sides must name in the handshake. The number is that of the stream heads and the
/// welcome; what the agents say inside the streams has a version of its own.
const ALPN: &[u8] = b"migrate/1";

/// A server name is part of TLS; ours is a constant, since names prove nothing here.
pub(crate) const SERVER_NAME: &str = "migrate";

/// The TLS alert `no_application_protocol` (RFC 7301): the peer speaks another version.
pub(crate) const ALERT_NO_COMMON_VERSION: u8 = 120;

/// AES-128-GCM first: it is the fastest suite on every host with AES instructions (2.7 times
/// ChaCha20 on QUIC here), and quinn needs it for its first packets anyway.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|s| s.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The destination's side: every client must prove some key.
pub(crate) fn server(identity: &Identity) -> Result<QuicServerConfig, Error> {
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyProvenKey { provider }))
        .with_single_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would let a key in that was struck off the list since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.try_into().map_err(no_initial_suite)
}

/// The source's side; the server must prove one of the keys that `pins` holds.
pub(crate) fn client(identity: &Identity, pins: Arc<PinnedKeys>) -> Result<QuicClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&pins.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pins)
        .with_client_auth_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.try_into().map_err(no_initial_suite)
}

fn no_initial_suite(_: quinn::crypto::rustls::NoInitialCipherSuite) -> Error {
    Error::General("the TLS provider lacks AES-128-GCM, which QUIC begins with".to_owned())
}

/// The keys a destination may have, and the one it showed.
#[derive(Debug)]
pub(crate) struct PinnedKeys {
    provider: Arc<CryptoProvider>,
    right: Vec<Fingerprint>,
    shown: OnceLock<Fingerprint>,
}

impl PinnedKeys {
    pub(crate) fn new(right: &[Fingerprint]) -> Arc<Self> {
        Arc::new(Self { provider: provider(), right: right.to_vec(), shown: OnceLock::new() })
    }

    /// The key that was shown and refused.
    pub(crate) fn refused(&self) -> Option<Fingerprint> {
        self.shown.get().filter(|shown| !self.right.contains(shown)).copied()
    }
}

impl ServerCertVerifier for PinnedKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = *self.shown.get_or_init(Fingerprint::of(end_entity).map(|f| move || f)?);
        if self.right.contains(&shown) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls_1_2())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        prove(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes every client that proves a key; who it is gets decided after the handshake.
#[derive(Debug)]
struct AnyProvenKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyProvenKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Fingerprint::of(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls_1_2())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        prove(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The one check that must never be left out: without it, showing a copy of a public certificate
/// would be enough.
fn prove(
    provider: &CryptoProvider,
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, cert, dss, &provider.signature_verification_algorithms)
}

fn tls_1_2() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_128_gcm_is_offered_first() {
        let first = provider().cipher_suites[0].suite();
        assert_eq!(first, CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}
