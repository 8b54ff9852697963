//! The source's call: it reaches a destination, makes sure whose key answers, and is let in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, TransportConfig};
use tokio::time::timeout;

use crate::connection::{REFUSED, UNAUTHORISED};
use crate::error::{Doing, words};
use crate::patience::Patience;
use crate::streams::{Kind, begin_reading};
use crate::tls::{self, Expected};
use crate::{
    Connection, Fingerprint, Identity, KnownHosts, LinkError, Refused, Tuning, endpoint, path,
};

/// Connects to `host` at `address`, which must prove a key that `known_hosts` has under that name,
/// or one that a CA of `known_hosts` has certified for it.
///
/// Returns when the destination has let us in: who is not authorised learns it here.
pub async fn connect(
    host: &str,
    address: SocketAddr,
    identity: &Identity,
    known_hosts: &KnownHosts,
    tuning: &Tuning,
) -> Result<Connection, LinkError> {
    let endpoint = endpoint::bind(any_port_towards(address), None)?;
    let known = Arc::new(known_hosts.clone());
    Dial { endpoint, host, address, known, same: None }.connect(identity, tuning).await
}

impl Connection {
    /// A second connection to the same host, which must prove the same key; shares the socket.
    /// Only for the side that connected.
    pub async fn connect_again(
        &self,
        identity: &Identity,
        tuning: &Tuning,
    ) -> Result<Self, LinkError> {
        let (endpoint, known) = (self.endpoint.clone(), Arc::clone(&self.known));
        let (address, same) = (self.address(), Some(self.fingerprint));
        let dial = Dial { endpoint, host: &self.host, address, known, same };
        dial.connect(identity, tuning).await
    }
}

/// Whom to call, and who may answer.
struct Dial<'a> {
    endpoint: Endpoint,
    host: &'a str,
    address: SocketAddr,
    known: Arc<KnownHosts>,
    /// The one key that is right, of those that would be.
    same: Option<Fingerprint>,
}

impl Dial<'_> {
    async fn connect(self, identity: &Identity, tuning: &Tuning) -> Result<Connection, LinkError> {
        let expected = Expected::new(self.host, Arc::clone(&self.known), self.same);
        let tls = tls::client(identity, Arc::clone(&expected)).map_err(LinkError::Tls)?;
        let payload_max = path::payload_max(self.address);
        let config = client_config(tls, tuning.transport(payload_max))?;
        let wait = tuning.handshake_wait;
        let mut patience = Patience::of(&self.endpoint);
        let ended = loop {
            match timeout(wait, self.shake_hands(config.clone())).await {
                Ok(Err(failure)) if failure.is_busy() => {
                    patience.pause().await.map_err(|tried| self.busy(tried))?;
                }
                ended => break ended,
            }
        };
        match ended {
            Ok(Ok((quic, fingerprint))) => {
                path::settle(&quic, payload_max).await;
                Ok(self.established(quic, fingerprint))
            }
            Ok(Err(failure)) => Err(self.explain(failure, &expected, identity, wait)),
            Err(_) => Err(self.unreachable(wait)),
        }
    }

    async fn shake_hands(
        &self,
        config: quinn::ClientConfig,
    ) -> Result<(quinn::Connection, Fingerprint), DialFailure> {
        let connecting = self.endpoint.connect_with(config, self.address, tls::SERVER_NAME)?;
        let quic = connecting.await?;
        let fingerprint = endpoint::shown(&quic).fingerprint();
        let doing = Doing { action: "wait to be let in", address: self.address };
        let mut stream = quic.accept_uni().await?;
        begin_reading(&mut stream, doing, Kind::Welcome).await?;
        Ok((quic, fingerprint))
    }

    fn established(self, quic: quinn::Connection, fingerprint: Fingerprint) -> Connection {
        let Self { endpoint, host, known, .. } = self;
        Connection { quic, endpoint, host: host.to_owned(), fingerprint, names: Vec::new(), known }
    }

    fn explain(
        &self,
        failure: DialFailure,
        expected: &Expected,
        identity: &Identity,
        waited: Duration,
    ) -> LinkError {
        let (host, address) = (self.host.to_owned(), self.address);
        if let Some((fingerprint, why)) = expected.refused() {
            return self.wrong_key(fingerprint, why);
        }
        let source = match failure {
            DialFailure::Connect(source) => return LinkError::Connect { host, address, source },
            DialFailure::Link(error) => return error,
            DialFailure::Connection(source) => source,
        };
        match source {
            ConnectionError::TimedOut => self.unreachable(waited),
            ConnectionError::ApplicationClosed(close) if close.error_code == UNAUTHORISED => {
                LinkError::Unauthorised { host, fingerprint: identity.fingerprint() }
            }
            ConnectionError::ApplicationClosed(close) if close.error_code == REFUSED => {
                let (fingerprint, reason) = (identity.fingerprint(), words(&close.reason));
                LinkError::Rejected { host, fingerprint, reason }
            }
            source if endpoint::is_version_mismatch(&source) => {
                LinkError::VersionMismatch { address, source }
            }
            ConnectionError::ConnectionClosed(close) => LinkError::Refused {
                host,
                address,
                code: close.error_code.into(),
                reason: words(&close.reason),
            },
            source => Doing { action: "connect", address }.lost(source),
        }
    }

    fn wrong_key(&self, fingerprint: Fingerprint, why: Refused) -> LinkError {
        let host = self.host.to_owned();
        let listed = self.same.map_or_else(|| self.known.of(self.host).to_vec(), |key| vec![key]);
        match (why, listed.is_empty()) {
            (Refused::NotListed, true) => LinkError::UnknownHost { host, fingerprint },
            (Refused::NotListed | Refused::UnknownAuthority(_), false) => {
                LinkError::ChangedHost { host, fingerprint, known: listed }
            }
            (source, _) => LinkError::Untrusted { host, fingerprint, source },
        }
    }

    fn busy(&self, tried: Duration) -> LinkError {
        LinkError::Busy { host: self.host.to_owned(), address: self.address, tried }
    }

    fn unreachable(&self, waited: Duration) -> LinkError {
        LinkError::Unreachable { host: self.host.to_owned(), address: self.address, waited }
    }
}

/// At which point a call failed; what it means depends on what the peer showed before.
#[derive(Debug, thiserror::Error)]
enum DialFailure {
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl DialFailure {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Connection(source) if endpoint::is_busy(source))
    }
}

pub(crate) fn client_config(
    tls: rustls::ClientConfig,
    transport: Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, LinkError> {
    let tls = QuicClientConfig::try_from(tls).map_err(|_| endpoint::no_initial_suite())?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport);
    Ok(config)
}

pub(crate) fn any_port_towards(address: SocketAddr) -> SocketAddr {
    let unspecified: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(unspecified, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Listener;

    fn identity() -> Identity {
        let home = tempfile::tempdir().unwrap();
        Identity::load_or_create(home.path()).unwrap()
    }

    /// Another version of the link is another ALPN; both sides must say so and not just "alert 120".
    #[tokio::test]
    async fn both_sides_name_a_version_mismatch() {
        let (source, destination) = (identity(), identity());
        let tuning = Tuning::bulk();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let listener =
            Listener::bind(anywhere, &destination, Arc::new(|_| Ok(Vec::new())), &tuning).unwrap();
        let mut known = KnownHosts::default();
        known.add("b", destination.fingerprint());
        let known = Arc::new(known);
        let expected = Expected::new("b", Arc::clone(&known), None);
        let mut tls = tls::client(&source, Arc::clone(&expected)).unwrap();
        tls.alpn_protocols = vec![b"migrate/0".to_vec()];
        let address = listener.address();
        let endpoint = endpoint::bind(anywhere, None).unwrap();
        let dial = Dial { endpoint, host: "b", address, known, same: None };

        let config = client_config(tls, tuning.transport(path::PAYLOAD_FIRST)).unwrap();
        let (called, answered) = tokio::join!(dial.shake_hands(config), async {
            listener.accept().await.unwrap().establish().await
        });

        let wait = tuning.handshake_wait;
        let explained = dial.explain(called.unwrap_err(), &expected, &source, wait);
        assert!(matches!(explained, LinkError::VersionMismatch { .. }), "{explained:?}");
        let answered = answered.unwrap_err();
        assert!(matches!(answered, LinkError::VersionMismatch { .. }), "{answered:?}");
    }
}
