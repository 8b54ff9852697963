//! The agent's life: takes up what was left unfinished, then listens for sources.

use crate::arrivals::welcome;
use crate::hello::hello;
use crate::journal::Journal;
use crate::policy::{Bounds, Policy};
use crate::registry::{Agent, Registry};
use crate::report;
use crate::scope::Scopes;
use crate::showing::Showing;
use crate::strangers::Strangers;
use anyhow::{Context as _, Result};
use link::{Authorised, AuthorizedHosts, Credentials, Fingerprint, Listener, Tuning};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use source_agent::copies::clear_away_what_was_left;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Builder;
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
    raise_descriptor_limit().context("raise the number of descriptors")?;
    let runtime = Builder::new_multi_thread().worker_threads(workers()).enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let served = runtime.block_on(serve(options));
    engine::memory::holder::leave();
    served?;
    // Threads may still be waiting for the runtime, and dropping it under them would be a panic.
    std::process::exit(0);
}

/// As many as the processors that we keep to while pages come ([`engine::priority::Aside`]). More only take
/// turns: with two on one processor a GiB costs a tenth more of it.
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (processors / 2).max(1)
}

/// Every address space that lacks pages has its descriptor, and a tree may have many.
fn raise_descriptor_limit() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

async fn serve(options: &Options) -> Result<()> {
    let (showing, identity) = Showing::load(&options.config).context("load the identity")?;
    let hello = hello().context("look at this host")?;
    let journal = Journal::open(&options.state, hello.host.boot_id.clone())?;
    let scopes = Scopes::look();
    let policy = Policy::new(options.bounds, options.config.clone());
    // A mistake in it is said now, and not when the first source is turned away. It is no reason to
    // end: trees that lack pages would be without an agent, and their holders would kill them.
    if let Err(error) = policy.rules(&identity.fingerprint(), &[]) {
        tracing::error!("nobody may send here: {}", report::chain(&error));
    }
    // No reason to end, as with the policy.
    if let Err(error) = clear_away_what_was_left(&options.state) {
        tracing::error!("an image may be left of copies: {}", report::chain(&error));
    }
    let state = options.state.clone();
    let agent = Agent { hello, journal, policy, scopes: Arc::clone(&scopes), state };
    let registry = Registry::new(agent);
    registry.recover().context("take up what was left unfinished")?;
    tokio::spawn(Arc::clone(&registry).keep_the_journal_short());
    tokio::spawn(scopes.sweep_for_ever());
    let authorised = authorised(options.config.clone());
    let listener = Listener::bind(options.address, &identity, authorised, &Tuning::bulk())?;
    say_where(listener.address(), identity.fingerprint())?;
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    tokio::select! {
        () = accept(&listener, &showing, &registry) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    listener.close();
    Ok(())
}

async fn accept(listener: &Listener, showing: &Showing, registry: &Arc<Registry>) {
    let strangers = Arc::new(Strangers::default());
    let last = Arc::clone(&strangers);
    tokio::spawn(async move { last.tell_of_the_last_for_ever().await });
    while let Ok(incoming) = listener.accept().await {
        showing.look(listener);
        let (registry, strangers) = (Arc::clone(registry), Arc::clone(&strangers));
        tokio::spawn(async move {
            match incoming.establish().await {
                Ok(connection) => welcome(connection, registry).await,
                Err(error) => strangers.tell(&error),
            }
        });
    }
}

/// Read anew for every connection, so that a line taken out counts at once.
fn authorised(config: PathBuf) -> Authorised {
    Arc::new(move |shown: &Credentials| Ok(AuthorizedHosts::load(&config)?.admit(shown)?))
}

/// The one line of standard output, for whoever started us.
fn say_where(address: SocketAddr, fingerprint: Fingerprint) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on {address} as {fingerprint}")
        .context("write to standard output")?;
    stdout.flush().context("write to standard output")
}
