//! Two hosts on the loopback device: identities, a listener, and connections between them.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use link::{
    Authorised, AuthorizedHosts, Connection, Fingerprint, Identity, KnownHosts, LinkError,
    Listener, Refused, Tuning, connect,
};

pub(crate) const WAIT: Duration = Duration::from_secs(20);
pub(crate) const HOST: &str = "hostb";

pub(crate) fn identity() -> Identity {
    let home = tempfile::tempdir().unwrap();
    Identity::load_or_create(home.path()).unwrap()
}

pub(crate) fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Lets the host with this key in.
pub(crate) fn only(key: Fingerprint) -> Authorised {
    let mut hosts = AuthorizedHosts::default();
    hosts.add(key);
    Arc::new(move |shown| Ok(hosts.admit(shown)?))
}

/// A source, a destination, and what each has been told of the other.
pub(crate) struct Pair {
    pub(crate) source: Identity,
    pub(crate) destination: Identity,
    pub(crate) known_hosts: KnownHosts,
    pub(crate) listener: Listener,
    pub(crate) tuning: Tuning,
}

impl Pair {
    /// Two hosts that trust each other.
    pub(crate) fn new(tuning: Tuning) -> Self {
        let source = identity();
        let authorised = only(source.fingerprint());
        Self::between(source, authorised, tuning)
    }

    /// A destination that does not let the source in.
    pub(crate) fn unauthorised() -> Self {
        Self::between(identity(), Arc::new(|_| Err(Refused::NotListed.into())), Tuning::bulk())
    }

    fn between(source: Identity, authorised: Authorised, tuning: Tuning) -> Self {
        let destination = identity();
        let mut known_hosts = KnownHosts::default();
        known_hosts.add(HOST, destination.fingerprint());
        let listener = Listener::bind(anywhere(), &destination, authorised, &tuning).unwrap();
        Self { source, destination, known_hosts, listener, tuning }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, LinkError> {
        let address = self.listener.address();
        connect(HOST, address, &self.source, &self.known_hosts, &self.tuning).await
    }

    pub(crate) async fn accept(&self) -> Result<Connection, LinkError> {
        self.listener.accept().await?.establish().await
    }

    /// What the source and what the destination make of one attempt.
    pub(crate) async fn meet(
        &self,
    ) -> (Result<Connection, LinkError>, Result<Connection, LinkError>) {
        tokio::join!(self.connect(), self.accept())
    }

    /// Both ends of an established connection.
    pub(crate) async fn established(&self) -> (Connection, Connection) {
        let (source, destination) = self.meet().await;
        (source.unwrap(), destination.unwrap())
    }
}
