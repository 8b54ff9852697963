//! The command line.

use crate::copies::{self, Errand};
use crate::listen::{self, Options};
use crate::policy::Bounds;
use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Takes running process trees in from other hosts.
#[derive(Debug, Parser)]
#[command(name = "dest-agent", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    listen: Listen,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print this host's fingerprint, for the known_hosts of its sources
    Fingerprint {
        /// Where the identity is
        #[arg(long, value_name = "DIR", default_value = link::DIRECTORY)]
        config: PathBuf,
    },
    /// Keep the memory of a tree from reading zeros when the agent dies
    #[command(hide = true)]
    Holder {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        grace: u64,
    },
    /// Be the first process in the namespace of a copy
    #[command(hide = true)]
    Copy(Errand),
}

#[derive(Debug, Args)]
struct Listen {
    /// UDP address to listen at
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:7747")]
    listen: SocketAddr,
    /// Where identity and authorized_hosts are
    #[arg(long, value_name = "DIR", default_value = link::DIRECTORY)]
    config: PathBuf,
    /// Where the journal is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/migrate")]
    state: PathBuf,
    /// Trees that may be on their way here at once
    #[arg(long, value_name = "N", default_value_t = Bounds::default().trees_max)]
    max_trees: usize,
    /// Memory that arriving trees must leave free
    #[arg(long, value_name = "MIB", default_value_t = Bounds::default().reserve_bytes >> 20)]
    reserve: u64,
}

impl Cli {
    pub fn run(self) -> ExitCode {
        log_to_stderr();
        engine::heap::share();
        match self.perform() {
            Ok(code) => code,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn perform(self) -> Result<ExitCode> {
        match self.command {
            Some(Command::Fingerprint { config }) => fingerprint(&config)?,
            Some(Command::Holder { socket, grace }) => hold(&socket, Duration::from_secs(grace))?,
            Some(Command::Copy(errand)) => return copies::run(&errand),
            None => listen::run(&self.listen.options())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Listen {
    fn options(self) -> Options {
        let bounds = Bounds {
            trees_max: self.max_trees,
            reserve_bytes: self.reserve.saturating_mul(1 << 20),
        };
        let Self { listen: address, config, state, .. } = self;
        Options { address, config, state, bounds }
    }
}

/// RUST_LOG chooses what is said; standard output is for programs. Colours are for terminals: in a
/// journal or a file they would stand between a reader and the words.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal);
    log.with_writer(std::io::stderr).init();
}

#[expect(clippy::print_stdout, reason = "the fingerprint is what was asked for")]
fn fingerprint(config: &Path) -> Result<()> {
    let identity = link::Identity::load_or_create(config).context("load the identity")?;
    println!("{}", identity.fingerprint());
    Ok(())
}

fn hold(socket: &Path, grace: Duration) -> Result<()> {
    let end = engine::memory::holder::run(socket, grace).context("hold a tree's memory")?;
    tracing::debug!(?end, "the holder ends");
    Ok(())
}
