//! TLS 1.3 in which both sides prove a key.
//!
//! A host *is* its key, as with SSH: where the key is listed, names, dates and issuers of its
//! certificate are not looked at. They count only where a CA that is listed vouches for the key
//! instead ([`crate::hosts`], [`crate::certificate`]); no other root is ever asked. What is always
//! checked is the signature over the handshake, which proves that the peer holds the private key of
//! the certificate it showed. The source knows before the handshake which keys are right and stops
//! there; the destination takes any key that is proven and decides afterwards, so that it can tell
//! a stranger why it is turned away (a TLS alert carries a number only).

use std::sync::{Arc, OnceLock};

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

use crate::{Credentials, Fingerprint, Identity, KnownHosts, Refused};

/// What both sides must name in the handshake. The number is that of the stream heads and the
/// welcome; what the agents say inside the streams has a version of its own.
const ALPN: &[u8] = b"migrate/1";

/// A server name is part of TLS; ours is a constant, since names prove nothing here.
pub(crate) const SERVER_NAME: &str = "migrate";

/// The TLS alert `no_application_protocol` (RFC 7301): the peer speaks another version.
pub(crate) const ALERT_NO_COMMON_VERSION: u8 = 120;

/// The TLS alert `access_denied` (RFC 8446), which is what [`turned_down`] becomes.
pub(crate) const ALERT_TURNED_DOWN: u8 = 49;

/// AES-128-GCM first: it is the fastest suite on every host with AES instructions (2.7 times
/// ChaCha20 on QUIC here), and quinn needs it for its first packets anyway.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|s| s.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    gather_randomness(&provider);
    Arc::new(provider)
}

/// The first random number of a process takes long: AWS-LC seeds itself from the jitter of the
/// processor, 0.2 s of an idle machine and 4 s of a busy one. Here, before a configuration is
/// made, it is on nobody's clock; in a handshake it would use up the peer's patience.
fn gather_randomness(provider: &CryptoProvider) {
    // What has no randomness now says so when it needs some.
    let _told_by_the_handshake = provider.secure_random.fill(&mut [0; 32]);
}

/// The destination's side: every client must prove some key.
pub(crate) fn server(identity: &Identity) -> Result<ServerConfig, Error> {
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyProvenKey { provider }))
        .with_single_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would let a key in that was struck off the list since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The source's side; the server must prove what `expected` expects.
pub(crate) fn client(identity: &Identity, expected: Arc<Expected>) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&expected.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(expected)
        .with_client_auth_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// One who asks for the server's key, shows nothing and goes no further.
pub(crate) fn asker(curious: Arc<Curious>) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&curious.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(curious)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Whom a destination must be, and what it showed if it was not.
#[derive(Debug)]
pub(crate) struct Expected {
    provider: Arc<CryptoProvider>,
    host: String,
    known: Arc<KnownHosts>,
    same: Option<Fingerprint>,
    refused: OnceLock<(Fingerprint, Refused)>,
}

impl Expected {
    /// `same`: the one key that is right, of those that `known` has or certifies.
    pub(crate) fn new(host: &str, known: Arc<KnownHosts>, same: Option<Fingerprint>) -> Arc<Self> {
        let (provider, host, refused) = (provider(), host.to_owned(), OnceLock::new());
        Arc::new(Self { provider, host, known, same, refused })
    }

    /// The key that was shown and refused, and why.
    pub(crate) fn refused(&self) -> Option<(Fingerprint, Refused)> {
        self.refused.get().cloned()
    }

    fn judge(&self, shown: &Credentials) -> Result<(), Refused> {
        match self.same {
            Some(same) if same != shown.fingerprint() => Err(Refused::NotListed),
            _ => self.known.recognise(&self.host, shown),
        }
    }
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Credentials::new(end_entity, intermediates)?;
        let Err(why) = self.judge(&shown) else { return Ok(ServerCertVerified::assertion()) };
        self.refused.get_or_init(|| (shown.fingerprint(), why));
        Err(turned_down())
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

/// Takes down what a server shows, waits for the proof that the key is its own, and says no to it
/// even then: nothing more is wanted of it, and it is to get nothing of us.
#[derive(Debug)]
pub(crate) struct Curious {
    provider: Arc<CryptoProvider>,
    shown: OnceLock<Credentials>,
    proven: OnceLock<Credentials>,
}

impl Curious {
    pub(crate) fn new() -> Arc<Self> {
        let (shown, proven) = (OnceLock::new(), OnceLock::new());
        Arc::new(Self { provider: provider(), shown, proven })
    }

    /// What was shown, if the server has proven that it is its own.
    pub(crate) fn proven(&self) -> Option<Credentials> {
        self.proven.get().cloned()
    }
}

impl ServerCertVerifier for Curious {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Credentials::new(end_entity, intermediates)?;
        self.shown.get_or_init(|| shown);
        Ok(ServerCertVerified::assertion())
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
        prove(&self.provider, message, cert, dss)?;
        if let Some(shown) = self.shown.get() {
            self.proven.get_or_init(|| shown.clone());
        }
        Err(turned_down())
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
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Credentials::new(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
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

fn turned_down() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

fn tls_1_2() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

#[cfg(test)]
mod tests {
    use rustls::client::ResolvesClientCert;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    fn identity() -> Identity {
        let home = tempfile::tempdir().unwrap();
        Identity::load_or_create(home.path()).unwrap()
    }

    /// Shows one host's certificate and signs with another one's key, as an impostor must.
    #[derive(Debug)]
    struct Impostor(Arc<CertifiedKey>);

    impl Impostor {
        fn posing_as(victim: &Identity) -> Arc<Self> {
            let own = provider().key_provider.load_private_key(identity().key()).unwrap();
            Arc::new(Self(Arc::new(CertifiedKey::new(victim.chain(), own))))
        }
    }

    impl ResolvesServerCert for Impostor {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    impl ResolvesClientCert for Impostor {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
        fn has_certs(&self) -> bool {
            true
        }
    }

    /// A handshake in memory; the error is that of the side which found something wrong.
    fn shake_hands(client: ClientConfig, server: ServerConfig) -> Result<(), Error> {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut there).unwrap();
            }
            server.read_tls(&mut there.as_slice()).unwrap();
            server.process_new_packets()?;
            while server.wants_write() {
                server.write_tls(&mut back).unwrap();
            }
            client.read_tls(&mut back.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn pinned(destination: &Identity) -> Arc<Expected> {
        let mut known = KnownHosts::default();
        known.add("hostb", destination.fingerprint());
        Expected::new("hostb", Arc::new(known), None)
    }

    const BAD_SIGNATURE: Error = Error::InvalidCertificate(CertificateError::BadSignature);

    #[test]
    fn two_hosts_that_hold_their_keys_agree() {
        let (source, destination) = (identity(), identity());
        let client = client(&source, pinned(&destination)).unwrap();
        assert_eq!(shake_hands(client, server(&destination).unwrap()), Ok(()));
    }

    #[test]
    fn a_destination_with_a_copied_certificate_is_found_out() {
        let (source, destination) = (identity(), identity());
        let client = client(&source, pinned(&destination)).unwrap();
        let mut server = server(&destination).unwrap();
        server.cert_resolver = Impostor::posing_as(&destination);
        assert_eq!(shake_hands(client, server), Err(BAD_SIGNATURE));
    }

    #[test]
    fn one_who_asks_for_a_key_gets_it_only_with_its_proof() {
        let destination = identity();
        let curious = Curious::new();
        let asked =
            shake_hands(asker(Arc::clone(&curious)).unwrap(), server(&destination).unwrap());
        assert_eq!(asked, Err(turned_down()), "it is ended from our side");
        let proven = curious.proven().map(|shown| shown.fingerprint());
        assert_eq!(proven, Some(destination.fingerprint()));

        let curious = Curious::new();
        let mut server = server(&destination).unwrap();
        server.cert_resolver = Impostor::posing_as(&destination);
        let asked = shake_hands(asker(Arc::clone(&curious)).unwrap(), server);
        assert_eq!(asked, Err(BAD_SIGNATURE));
        assert!(curious.proven().is_none(), "a copied certificate proves nothing");
    }

    #[test]
    fn a_source_with_a_copied_certificate_is_found_out() {
        let (source, destination) = (identity(), identity());
        let mut client = client(&source, pinned(&destination)).unwrap();
        client.client_auth_cert_resolver = Impostor::posing_as(&source);
        assert_eq!(shake_hands(client, server(&destination).unwrap()), Err(BAD_SIGNATURE));
    }

    #[test]
    fn a_source_without_a_key_is_turned_away() {
        let destination = identity();
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(pinned(&destination))
            .with_no_client_auth();
        let refused = shake_hands(client, server(&destination).unwrap());
        assert_eq!(refused, Err(Error::NoCertificatesPresented));
    }

    #[test]
    fn aes_128_gcm_is_offered_first() {
        let first = provider().cipher_suites[0].suite();
        assert_eq!(first, CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}
