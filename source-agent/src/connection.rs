//! A line to the destination: who it is, the connection, and the streams on it.

use crate::bulk::{self, Moved, Watch};
use crate::control::{self, ControlSender};
use crate::faults::{self, FaultLine};
use crate::news::Post;
use crate::place::Place;
use bytes::Bytes;
use link::{Connection, Identity, KNOWN_HOSTS, KnownHosts, LinkError, TrustFileError, Tuning};
use protocol::MigrationId;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("find the address of {host}")]
    Resolve { host: String, source: std::io::Error },
    #[error("{0} has no address")]
    NoAddress(String),
    #[error(transparent)]
    Trust(#[from] TrustFileError),
    #[error("{known_hosts} does not have the right key of {host}")]
    Key { known_hosts: String, host: String, source: Box<LinkError> },
    #[error("reach {place}")]
    Link { place: String, source: Box<LinkError> },
}

/// The other host, and who we are to it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) place: Place,
    config: PathBuf,
    identity: Mutex<Arc<Identity>>,
}

impl Peer {
    pub(crate) fn new(place: Place, config: &Path) -> Result<Self, DialError> {
        let identity = Mutex::new(Arc::new(Identity::load_or_create(config)?));
        Ok(Self { place, config: config.to_owned(), identity })
    }

    /// Who we are: with the certificate that the key has now, for one may expire while a tree still
    /// lacks pages; but by the same key to the end, for a migration belongs to the key that began it.
    fn identity(&self) -> Result<Arc<Identity>, TrustFileError> {
        let now = Identity::load(&self.config)?;
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if now.fingerprint() == identity.fingerprint() {
            *identity = Arc::new(now);
        }
        Ok(Arc::clone(&identity))
    }

    /// As it was when we dialled last.
    fn held_identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `known_hosts` is read every time: what the operator adds counts at the next attempt.
    pub(crate) async fn dial(&self) -> Result<Connection, DialError> {
        let known = KnownHosts::load(&self.config)?;
        let identity = self.identity()?;
        let mut failure = DialError::NoAddress(self.place.host.clone());
        for address in addresses(&self.place).await? {
            let host = &self.place.host;
            match link::connect(host, address, &identity, &known, &Tuning::bulk()).await {
                Ok(connection) => return Ok(connection),
                Err(source) => failure = self.explain(Box::new(source)),
            }
        }
        Err(failure)
    }

    fn explain(&self, source: Box<LinkError>) -> DialError {
        let host = self.place.host.clone();
        match *source {
            LinkError::UnknownHost { .. }
            | LinkError::ChangedHost { .. }
            | LinkError::Untrusted { .. } => {
                let known_hosts = self.config.join(KNOWN_HOSTS).display().to_string();
                DialError::Key { known_hosts, host, source }
            }
            _ => DialError::Link { place: self.place.to_string(), source },
        }
    }
}

pub(crate) async fn addresses(place: &Place) -> Result<Vec<SocketAddr>, DialError> {
    let Place { host, port } = place;
    let found = tokio::net::lookup_host((host.as_str(), *port)).await;
    let host = host.clone();
    Ok(found.map_err(|source| DialError::Resolve { host, source })?.collect())
}

/// What the engine's thread sends pages through.
#[derive(Debug)]
pub(crate) struct PageLines {
    pub(crate) senders: Vec<mpsc::Sender<Bytes>>,
    pub(crate) faults: FaultLine,
    pub(crate) bulk: Connection,
}

/// One connection with its control stream. Dropping it ends its tasks, and so its streams.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: u32,
    connection: Connection,
    control: ControlSender,
    id: MigrationId,
    watch: Watch,
    listener: JoinSet<()>,
    pages: JoinSet<()>,
    pub(crate) has_pages: bool,
    /// How long the destination took to accept the stream: a round trip at least.
    answered_within: Duration,
}

/// For the destination to have taken our last word, and for it to know that we have gone.
const GOODBYE_WAIT: Duration = Duration::from_secs(2);

impl Line {
    pub(crate) async fn open(
        connection: Connection,
        id: MigrationId,
        number: u32,
        post: Post,
        moved: Moved,
    ) -> Result<Self, LinkError> {
        let watch = Watch { line: number, post, moved };
        let mut listener = JoinSet::new();
        let began = Instant::now();
        let control = control::open(&connection, id, &watch, &mut listener).await?;
        let answered_within = began.elapsed();
        let (pages, has_pages) = (JoinSet::new(), false);
        Ok(Self {
            number,
            connection,
            control,
            id,
            watch,
            listener,
            pages,
            has_pages,
            answered_within,
        })
    }

    /// Where the destination is.
    pub(crate) fn peer_ip(&self) -> IpAddr {
        self.connection.address().ip().to_canonical()
    }

    pub(crate) async fn send(
        &mut self,
        message: protocol::Message,
    ) -> Result<(), control::SendError> {
        self.control.send(message).await
    }

    /// Opens the streams for pages and the connection for faults.
    pub(crate) async fn open_pages(&mut self, peer: &Peer) -> Result<PageLines, LinkError> {
        let Self { connection, id, watch, pages, .. } = self;
        let senders = bulk::open(connection, *id, watch, pages).await?;
        let faults = faults::open(connection, &peer.held_identity(), *id, watch, pages).await?;
        self.has_pages = true;
        Ok(PageLines { senders, faults, bulk: self.connection.clone() })
    }

    /// What is still to be sent of pages is not: whoever hands us more is told so at once.
    pub(crate) fn cut_pages(&mut self) {
        self.pages.abort_all();
    }

    /// An estimate that is never too short. The link's own begins with the handshake, which is
    /// mostly arithmetic.
    pub(crate) fn rtt(&self) -> Duration {
        self.connection.rtt().min(self.answered_within)
    }

    /// Leaves without a word, for another line to come.
    pub(crate) fn abandon(self) {
        self.connection.close(link::CALLER_CODES, "the source comes back on another connection");
    }

    /// Ends the conversation after the last word.
    pub(crate) async fn close(mut self, reason: &str) {
        self.listener.abort_all();
        self.pages.abort_all();
        let _peer_has_gone = self.control.finish(GOODBYE_WAIT).await;
        close(&self.connection, reason).await;
    }

    /// Ends this conversation, for another one on the same connection.
    pub(crate) async fn leave(mut self) {
        self.listener.abort_all();
        let _peer_has_gone = self.control.finish(GOODBYE_WAIT).await;
    }
}

/// Ends a connection whose last word was said.
pub(crate) async fn close(connection: &Connection, reason: &str) {
    connection.close(link::CALLER_CODES, reason);
    let _peer_has_gone = connection.drain(GOODBYE_WAIT).await;
}
