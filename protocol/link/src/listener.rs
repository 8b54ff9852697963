//! The destination's door: it waits for sources, and decides who comes in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{ConnectionError, Endpoint};

use crate::admission::{Admission, Knock, PLACES, Place, Verdict};
use crate::connection::{REFUSED, UNAUTHORISED};
use crate::error::Doing;
use crate::streams::{Kind, Sending};
use crate::{
    Connection, Credentials, Fingerprint, Identity, LinkError, Refused, TrustFileError, Tuning,
    endpoint, path, tls,
};

/// Decides who may send here, and says what names it has ([`crate::AuthorizedHosts::admit`]). Asked
/// anew for every connection, so a struck key is out at once.
pub type Authorised = Arc<dyn Fn(&Credentials) -> Result<Vec<String>, NotAdmitted> + Send + Sync>;

/// Why somebody who has proven a key is not let in.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// Because of what it has shown.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody is let in: who may be, cannot be told.
    #[error("tell who may send here")]
    Undecided(#[from] TrustFileError),
}

/// Waits for sources at one address.
pub struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
    authorised: Authorised,
    shown: Arc<Shown>,
    handshake_wait: Duration,
    admission: Arc<Mutex<Admission>>,
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
        let config = server_config(tls, tuning)?;
        let endpoint = endpoint::bind(address, Some(config.clone()))?;
        let bound = endpoint.local_addr().map_err(|source| LinkError::Bind { address, source })?;
        Ok(Self {
            endpoint,
            address: bound,
            authorised,
            shown: Arc::new(Shown(Mutex::new(Arc::new(config)))),
            handshake_wait: tuning.handshake_wait,
            admission: Arc::new(Mutex::new(Admission::new(Instant::now()))),
        })
    }

    /// Shows another key, or another certificate, from now on: to all that are not established yet.
    pub fn show(&self, identity: &Identity, tuning: &Tuning) -> Result<(), LinkError> {
        let tls = tls::server(identity).map_err(LinkError::Tls)?;
        // Not by the endpoint: it would be too late for one that has knocked, and would forget what
        // it has told others to come back with.
        self.shown.set(server_config(tls, tuning)?);
        Ok(())
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
            if let Some((quic, place)) = self.admit(quic) {
                return Ok(Incoming {
                    quic,
                    endpoint: self.endpoint.clone(),
                    authorised: Arc::clone(&self.authorised),
                    shown: Arc::clone(&self.shown),
                    wait: self.handshake_wait,
                    _place: place,
                });
            }
        }
    }

    fn admit(&self, quic: quinn::Incoming) -> Option<(quinn::Incoming, Place)> {
        let knock = Knock::new(quic.remote_address().ip(), quic.remote_address_validated());
        match self.judge(knock) {
            Verdict::Admit => return Some((quic, Place::of(&self.admission, knock))),
            // Fails only for a validated address, which is never told to retry.
            Verdict::Retry => drop(quic.retry()),
            Verdict::Refuse => quic.refuse(),
        }
        None
    }

    fn judge(&self, knock: Knock) -> Verdict {
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        admission.judge(knock, Instant::now())
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

/// How this host shows itself at the moment.
struct Shown(Mutex<Arc<quinn::ServerConfig>>);

impl Shown {
    fn set(&self, config: quinn::ServerConfig) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    fn now(&self) -> Arc<quinn::ServerConfig> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Somebody who knocked and has shown nothing yet.
pub struct Incoming {
    quic: quinn::Incoming,
    endpoint: Endpoint,
    authorised: Authorised,
    shown: Arc<Shown>,
    wait: Duration,
    _place: Place,
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
        let quic =
            self.quic.accept_with(self.shown.now()).map_err(failed)?.await.map_err(failed)?;
        let shown = endpoint::shown(&quic);
        let fingerprint = shown.fingerprint();
        let admitted = (self.authorised)(&shown);
        let names = admitted.map_err(|why| turn_away(&quic, address, fingerprint, why))?;
        welcome(&quic, doing).await?;
        Ok(Connection {
            quic,
            endpoint: self.endpoint,
            host: address.ip().to_string(),
            fingerprint,
            names,
            known: Arc::default(),
        })
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Incoming").field(&self.quic.remote_address()).finish()
    }
}

/// Tells it why, as far as that is its business.
fn turn_away(
    quic: &quinn::Connection,
    address: SocketAddr,
    fingerprint: Fingerprint,
    why: NotAdmitted,
) -> LinkError {
    match why {
        NotAdmitted::Refused(Refused::NotListed) => {
            quic.close(UNAUTHORISED, b"this key is not in authorized_hosts");
            LinkError::Stranger { address, fingerprint }
        }
        NotAdmitted::Refused(source) => {
            quic.close(REFUSED, format!("its {source}").as_bytes());
            LinkError::TurnedAway { address, fingerprint, source }
        }
        NotAdmitted::Undecided(source) => {
            quic.close(REFUSED, UNDECIDED.as_bytes());
            LinkError::Undecided { address, fingerprint, source: Box::new(source) }
        }
    }
}

/// To add a line would be wrong advice, and which file it is, is the operator's business.
const UNDECIDED: &str = "its configuration is broken and it lets nobody in; ask its operator to \
                         look into its log";

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
    } else if endpoint::is_turned_down(&source) {
        LinkError::TurnedDown { address }
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
