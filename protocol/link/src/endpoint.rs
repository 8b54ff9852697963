//! How two hosts come together: one listens, one connects, and only then is there a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, Endpoint, TokioRuntime, TransportConfig, TransportErrorCode};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::admission::{Admission, PLACES, Verdict};
use crate::connection::UNAUTHORISED;
use crate::error::{Doing, words};
use crate::streams::{Kind, Sending, begin_reading};
use crate::tls::{self, PinnedKeys};
use crate::{
    Connection, Fingerprint, Identity, KnownHosts, LinkError, Tuning, path, socket, tuning,
};

/// Decides who may send here. Asked anew for every connection, so a struck key is out at once.
pub type Authorised = Arc<dyn Fn(&Fingerprint) -> bool + Send + Sync>;

/// Waits for sources at one address.
pub struct Listener {
    endpoint: Endpoint,
    authorised: Authorised,
    handshake_wait: Duration,
    admission: Mutex<Admission>,
    handshakes: Arc<Semaphore>,
}

impl Listener {
    /// Listens at UDP `address`. Must be called within a tokio runtime, which then serves it.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        authorised: Authorised,
        tuning: &Tuning,
    ) -> Result<Self, LinkError> {
        let tls = tls::server(identity).map_err(LinkError::Tls)?;
        Ok(Self {
            endpoint: bind(address, Some(server_config(tls, tuning)?))?,
            authorised,
            handshake_wait: tuning.handshake_wait,
            admission: Mutex::new(Admission::new(Instant::now())),
            handshakes: Arc::new(Semaphore::new(PLACES)),
        })
    }

    /// Where it listens; tells the port where 0 was asked for.
    pub fn address(&self) -> Result<SocketAddr, LinkError> {
        let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        self.endpoint
            .local_addr()
            .map_err(|source| LinkError::Bind { address: unspecified, source })
    }

    /// The next one that knocks. Give [`Incoming::establish`] a task of its own: strangers are slow.
    ///
    /// Waits without a limit; fails only after [`Self::close`].
    pub async fn accept(&self) -> Result<Incoming, LinkError> {
        loop {
            let quic = self.endpoint.accept().await.ok_or(LinkError::ListenerClosed)?;
            if let Some((quic, permit)) = self.admit(quic) {
                return Ok(Incoming {
                    quic,
                    endpoint: self.endpoint.clone(),
                    authorised: Arc::clone(&self.authorised),
                    wait: self.handshake_wait,
                    _permit: permit,
                });
            }
        }
    }

    fn admit(&self, quic: quinn::Incoming) -> Option<(quinn::Incoming, OwnedSemaphorePermit)> {
        match self.judge(quic.remote_address_validated()) {
            Verdict::Admit => {
                let permit = Arc::clone(&self.handshakes).try_acquire_owned().ok()?;
                return Some((quic, permit));
            }
            // Fails only for a validated address, which is never told to retry.
            Verdict::Retry => drop(quic.retry()),
            Verdict::Refuse => quic.refuse(),
        }
        None
    }

    fn judge(&self, validated: bool) -> Verdict {
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        admission.judge(validated, self.handshakes.available_permits(), Instant::now())
    }

    /// Ends every connection that came in here, and all waiting in [`Self::accept`].
    pub fn close(&self) {
        self.endpoint.close(0u32.into(), b"the destination closes");
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Listener").field(&self.endpoint.local_addr()).finish()
    }
}

/// Somebody who knocked and has shown nothing yet.
pub struct Incoming {
    quic: quinn::Incoming,
    endpoint: Endpoint,
    authorised: Authorised,
    wait: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Incoming {
    /// Lets it prove its key, asks whether that key may send here, and tells it.
    ///
    /// A stranger is told why it is turned away, before one byte of its streams is read.
    pub async fn establish(self) -> Result<Connection, LinkError> {
        let address = self.quic.remote_address();
        let doing = Doing { action: "shake hands", address };
        doing.within(self.wait, self.establish_unbounded(doing)).await
    }

    async fn establish_unbounded(self, doing: Doing) -> Result<Connection, LinkError> {
        let address = doing.address;
        let failed = |source| handshake_failed(address, source);
        let quic = self.quic.accept().map_err(failed)?.await.map_err(failed)?;
        let fingerprint = proven_key(&quic)
            .ok_or(LinkError::Handshake { address, source: ConnectionError::LocallyClosed })?;
        if !(self.authorised)(&fingerprint) {
            quic.close(UNAUTHORISED, b"this key is not in authorized_hosts");
            return Err(LinkError::Stranger { address, fingerprint });
        }
        welcome(&quic, doing).await?;
        Ok(Connection {
            quic,
            endpoint: self.endpoint,
            host: address.ip().to_string(),
            fingerprint,
        })
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Incoming").field(&self.quic.remote_address()).finish()
    }
}

/// Connects to `host` at `address`, which must prove a key that `known_hosts` has under that name.
///
/// Returns when the destination has let us in: who is not authorised learns it here.
pub async fn connect(
    host: &str,
    address: SocketAddr,
    identity: &Identity,
    known_hosts: &KnownHosts,
    tuning: &Tuning,
) -> Result<Connection, LinkError> {
    let endpoint = bind(any_port_towards(address), None)?;
    Dial { endpoint, host, address, right: known_hosts.of(host) }.connect(identity, tuning).await
}

impl Connection {
    /// A second connection to the same host, which must prove the same key; shares the socket.
    /// Only for the side that connected.
    pub async fn connect_again(
        &self,
        identity: &Identity,
        tuning: &Tuning,
    ) -> Result<Self, LinkError> {
        let endpoint = self.endpoint.clone();
        let right = &[self.fingerprint];
        let dial = Dial { endpoint, host: &self.host, address: self.address(), right };
        dial.connect(identity, tuning).await
    }
}

/// Whom to call, and the keys that may answer.
struct Dial<'a> {
    endpoint: Endpoint,
    host: &'a str,
    address: SocketAddr,
    right: &'a [Fingerprint],
}

impl Dial<'_> {
    async fn connect(self, identity: &Identity, tuning: &Tuning) -> Result<Connection, LinkError> {
        let pins = PinnedKeys::new(self.right);
        let tls = tls::client(identity, Arc::clone(&pins)).map_err(LinkError::Tls)?;
        let payload_max = path::payload_max(self.address);
        let config = client_config(tls, tuning.transport(payload_max))?;
        let wait = tuning.handshake_wait;
        match timeout(wait, self.shake_hands(config)).await {
            Ok(Ok((quic, fingerprint))) => {
                path::settle(&quic, payload_max).await;
                Ok(self.established(quic, fingerprint))
            }
            Ok(Err(failure)) => Err(self.explain(failure, &pins, identity, wait)),
            Err(_) => Err(self.unreachable(wait)),
        }
    }

    async fn shake_hands(
        &self,
        config: quinn::ClientConfig,
    ) -> Result<(quinn::Connection, Fingerprint), DialFailure> {
        let connecting = self.endpoint.connect_with(config, self.address, tls::SERVER_NAME)?;
        let quic = connecting.await?;
        let fingerprint = proven_key(&quic).ok_or(ConnectionError::LocallyClosed)?;
        let doing = Doing { action: "wait to be let in", address: self.address };
        let mut stream = quic.accept_uni().await?;
        begin_reading(&mut stream, doing, Kind::Welcome).await?;
        Ok((quic, fingerprint))
    }

    fn established(self, quic: quinn::Connection, fingerprint: Fingerprint) -> Connection {
        Connection { quic, endpoint: self.endpoint, host: self.host.to_owned(), fingerprint }
    }

    fn explain(
        &self,
        failure: DialFailure,
        pins: &PinnedKeys,
        identity: &Identity,
        waited: Duration,
    ) -> LinkError {
        let (host, address) = (self.host.to_owned(), self.address);
        if let Some(fingerprint) = pins.refused() {
            return self.wrong_key(fingerprint);
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
            source if is_version_mismatch(&source) => {
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

    fn wrong_key(&self, fingerprint: Fingerprint) -> LinkError {
        let host = self.host.to_owned();
        if self.right.is_empty() {
            LinkError::UnknownHost { host, fingerprint }
        } else {
            LinkError::ChangedHost { host, fingerprint, known: self.right.to_vec() }
        }
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

/// The source cannot know by the handshake alone that it is let in: in TLS 1.3 the client's key is
/// the last thing that is sent. So the destination says it, and refusals come before any stream.
async fn welcome(quic: &quinn::Connection, doing: Doing) -> Result<(), LinkError> {
    let stream = quic.open_uni().await.map_err(|e| doing.lost(e))?;
    Sending::begin(stream, doing, Kind::Welcome, 0).await?.finish().await
}

fn proven_key(quic: &quinn::Connection) -> Option<Fingerprint> {
    let chain = quic.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Fingerprint::of(chain.first()?).ok()
}

fn handshake_failed(address: SocketAddr, source: ConnectionError) -> LinkError {
    if is_version_mismatch(&source) {
        LinkError::VersionMismatch { address, source }
    } else {
        LinkError::Handshake { address, source }
    }
}

/// Either side may be the one that notices, and QUIC has a version below ours.
fn is_version_mismatch(source: &ConnectionError) -> bool {
    let alert = TransportErrorCode::crypto(tls::ALERT_NO_COMMON_VERSION);
    match source {
        ConnectionError::VersionMismatch => true,
        ConnectionError::TransportError(error) => error.code == alert,
        ConnectionError::ConnectionClosed(close) => close.error_code == alert,
        _ => false,
    }
}

fn client_config(
    tls: rustls::ClientConfig,
    transport: Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, LinkError> {
    let tls = QuicClientConfig::try_from(tls).map_err(|_| no_initial_suite())?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport);
    Ok(config)
}

fn server_config(
    tls: rustls::ServerConfig,
    tuning: &Tuning,
) -> Result<quinn::ServerConfig, LinkError> {
    let tls = QuicServerConfig::try_from(tls).map_err(|_| no_initial_suite())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(tuning.transport(path::PAYLOAD_MAX))
        .max_incoming(PLACES)
        // A host does not change its address in mid-move; what pretends to is not believed.
        .migration(false);
    Ok(config)
}

fn no_initial_suite() -> LinkError {
    LinkError::Tls(rustls::Error::General("no AES-128-GCM, with which QUIC begins".to_owned()))
}

fn bind(address: SocketAddr, server: Option<quinn::ServerConfig>) -> Result<Endpoint, LinkError> {
    socket::bind(address)
        .and_then(|socket| {
            Endpoint::new(tuning::endpoint(), server, socket, Arc::new(TokioRuntime))
        })
        .map_err(|source| LinkError::Bind { address, source })
}

fn any_port_towards(address: SocketAddr) -> SocketAddr {
    let unspecified: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(unspecified, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let listener = Listener::bind(anywhere, &destination, Arc::new(|_| true), &tuning).unwrap();
        let right = &[destination.fingerprint()];
        let pins = PinnedKeys::new(right);
        let mut tls = tls::client(&source, Arc::clone(&pins)).unwrap();
        tls.alpn_protocols = vec![b"migrate/0".to_vec()];
        let address = listener.address().unwrap();
        let dial = Dial { endpoint: bind(anywhere, None).unwrap(), host: "b", address, right };

        let config = client_config(tls, tuning.transport(path::PAYLOAD_FIRST)).unwrap();
        let (called, answered) = tokio::join!(dial.shake_hands(config), async {
            listener.accept().await.unwrap().establish().await
        });

        let wait = tuning.handshake_wait;
        let explained = dial.explain(called.unwrap_err(), &pins, &source, wait);
        assert!(matches!(explained, LinkError::VersionMismatch { .. }), "{explained:?}");
        let answered = answered.unwrap_err();
        assert!(matches!(answered, LinkError::VersionMismatch { .. }), "{answered:?}");
    }
}
