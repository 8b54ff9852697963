//! `migrate` from the command line to its exit code.

use crate::attempt::Attempt;
use crate::cli::{Cli, Command, Task};
use crate::news::{News, Post};
use crate::output::print;
use crate::{check, list, resume};
use anyhow::{Context as _, Result};
use clap::Parser as _;
use std::io;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// One for the session, and some for the link's encryption.
const WORKERS: usize = 4;

/// For a thread that still looks up a name.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_standard_error();
    match runtime().and_then(|runtime| run(runtime, cli)) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(4)
        }
    }
}

fn log_to_standard_error() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

fn runtime() -> Result<Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    runtime.context("start the runtime")
}

fn run(runtime: Runtime, cli: Cli) -> Result<ExitCode> {
    let ended = runtime.block_on(dispatch(cli));
    runtime.shutdown_timeout(SHUTDOWN_WAIT);
    ended
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    match cli.task().context("there is nothing to do")? {
        Task::Move(moving) => Ok(Attempt { moving, only_check: false }.run().await),
        Task::Command(Command::Check(check)) => check::run(check).await,
        Task::Command(Command::Fingerprint(fingerprint)) => {
            let identity = link::Identity::load_or_create(&fingerprint.config)?;
            print(&identity.fingerprint().to_string());
            Ok(ExitCode::SUCCESS)
        }
        Task::Command(Command::List(list)) => list::run(&list),
        Task::Command(Command::Resume(resume)) => resume::run(resume).await,
    }
}

/// A closed terminal is an operator who has gone, and is treated as one who cancels.
pub(crate) fn watch_signals(post: &Post) -> io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signal, post) = (signal(kind)?, post.clone());
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                if post.send(News::Stop).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}
