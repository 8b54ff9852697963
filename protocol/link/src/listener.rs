//! The destination's door: it waits for sources, and decides who comes in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{ConnectionError, Endpoint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admission::{Admission, PLACES, Verdict};
use crate::connection::UNAUTHORISED;
use crate::error::Doing;
use crate::streams::{Kind, Sending};
use crate::{Connection, Fingerprint, Identity, LinkError, Tuning, endpoint, path, tls};

/// Decides who may send here. Asked anew for every connection, so a struck key is out at once.
pub type Authorised = Arc<dyn Fn(&Fingerprint) -> bool + Send + Sync>;

/// Waits for sources at one address.
pub struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
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
        let endpoint = endpoint::bind(address, Some(server_config(tls, tuning)?))?;
        let bound = endpoint.local_addr().map_err(|source| LinkError::Bind { address, source })?;
        Ok(Self {
            endpoint,
            address: bound,
            authorised,
            handshake_wait: tuning.handshake_wait,
            admission: Mutex::new(Admission::new(Instant::now())),
            handshakes: Arc::new(Semaphore::new(PLACES)),
        })
    }

    /// Where it listens; tells the port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
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
        f.debug_tuple("Listener").field(&self.address).finish()
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
        let fingerprint = endpoint::proven_key(&quic);
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

/// The source cannot know by the handshake alone that it is let in: in TLS 1.3 the client's key is
/// the last thing that is sent. So the destination says it, and refusals come before any stream.
async fn welcome(quic: &quinn::Connection, doing: Doing) -> Result<(), LinkError> {
    let stream = quic.open_uni().await.map_err(|e| doing.lost(e))?;
    match Sending::begin(stream, doing, Kind::Welcome, 0).await?.finish().await {
        // It has read the welcome and wants no more of the stream: there is no more.
        Err(LinkError::Abandoned { .. }) => Ok(()),
        other => other,
    }
}

fn handshake_failed(address: SocketAddr, source: ConnectionError) -> LinkError {
    if endpoint::is_version_mismatch(&source) {
        LinkError::VersionMismatch { address, source }
    } else {
        LinkError::Handshake { address, source }
    }
}

fn server_config(
    tls: rustls::ServerConfig,
    tuning: &Tuning,
) -> Result<quinn::ServerConfig, LinkError> {
    let tls = QuicServerConfig::try_from(tls).map_err(|_| endpoint::no_initial_suite())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(tuning.transport(path::PAYLOAD_MAX))
        .max_incoming(PLACES)
        // A host does not change its address in mid-move; what pretends to is not believed.
        .migration(false);
    Ok(config)
}
