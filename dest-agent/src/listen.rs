//! The agent's life: takes up what was left unfinished, then listens for sources.

use crate::arrivals::welcome;
use crate::hello::hello;
use crate::journal::Journal;
use crate::policy::{Bounds, Policy};
use crate::registry::{Agent, Registry};
use crate::report;
use anyhow::{Context as _, Result};
use link::{Authorised, AuthorizedHosts, Fingerprint, Identity, Listener, Tuning};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Clone, Debug)]
pub struct Options {
    pub address: SocketAddr,
    pub config: PathBuf,
    pub state: PathBuf,
    pub bounds: Bounds,
}

/// Until SIGTERM or SIGINT. Trees that run here go on; those that do not run yet end with us, and
/// go on at their sources.
pub fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(serve(options))?;
    // Threads may still be waiting for the runtime, and dropping it under them would be a panic.
    std::process::exit(0);
}

async fn serve(options: &Options) -> Result<()> {
    let identity = Identity::load_or_create(&options.config).context("load the identity")?;
    let hello = hello().context("look at this host")?;
    let journal = Journal::open(&options.state, hello.host.boot_id.clone())?;
    let registry = Registry::new(Agent { hello, journal, policy: Policy::new(options.bounds) });
    registry.recover().context("take up what was left unfinished")?;
    let authorised = authorised(options.config.join(link::AUTHORIZED_HOSTS));
    let listener = Listener::bind(options.address, &identity, authorised, &Tuning::bulk())?;
    say_where(listener.address(), identity.fingerprint())?;
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    tokio::select! {
        () = accept(&listener, &registry) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    listener.close();
    Ok(())
}

async fn accept(listener: &Listener, registry: &Arc<Registry>) {
    while let Ok(incoming) = listener.accept().await {
        let registry = Arc::clone(registry);
        tokio::spawn(async move {
            match incoming.establish().await {
                Ok(connection) => welcome(connection, registry).await,
                Err(error) => tracing::warn!("{}", report::chain(&error)),
            }
        });
    }
}

/// Read anew for every connection, so that a line taken out counts at once.
fn authorised(path: PathBuf) -> Authorised {
    Arc::new(move |fingerprint: &Fingerprint| is_authorised(&path, fingerprint))
}

fn is_authorised(path: &Path, fingerprint: &Fingerprint) -> bool {
    match AuthorizedHosts::load(path) {
        Ok(hosts) => hosts.contains(fingerprint),
        Err(error) => {
            tracing::error!("nobody may send here: {}", report::chain(&error));
            false
        }
    }
}

/// The one line of standard output, for whoever started us.
fn say_where(address: SocketAddr, fingerprint: Fingerprint) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on {address} as {fingerprint}")
        .context("write to standard output")?;
    stdout.flush().context("write to standard output")
}
