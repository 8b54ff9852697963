//! `migrate` from the command line to its exit code.

use crate::cli::{Cli, Command, Service, Task};
use crate::complaint::Complaint;
use crate::output::print;
use crate::{
    ca, check, dump, duplicate, identity, images, list, quick_start, restore, resume, service,
    settle, start, trust,
};
use anyhow::{Context as _, Result};
use clap::Parser as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

/// One for the session, and some for the link's encryption.
const WORKERS: usize = 4;

/// For a thread that still looks up a name.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);

/// `migrate`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_standard_error("warn");
    engine::heap::share();
    if let Err(error) = cli.seclude() {
        return Complaint::failed(format!("{error}: {}", error.source)).say();
    }
    let ended = runtime().and_then(|runtime| run(runtime, dispatch(cli)));
    ended.unwrap_or_else(|error| Complaint::failed(format!("{error:#}")).say())
}

/// `source-agent`.
pub fn serve() -> ExitCode {
    let options = Service::parse();
    log_to_standard_error("info");
    engine::heap::share();
    let serving = async { service::run(options).await.map(|()| ExitCode::SUCCESS) };
    runtime().and_then(|runtime| run(runtime, serving)).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::from(4)
    })
}

fn log_to_standard_error(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Colours are noise in a file and in a pipe.
    let colours = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.with_ansi(colours).init();
}

pub(crate) fn runtime() -> Result<Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    runtime.context("start the runtime")
}

fn run(runtime: Runtime, task: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let ended = runtime.block_on(task);
    runtime.shutdown_timeout(SHUTDOWN_WAIT);
    ended
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    match cli.task().context("there is nothing to do")? {
        Task::Move { moving, agent, detach } => start::run(moving, &agent, detach).await,
        Task::Command(Command::Check(check)) => check::run(check).await,
        Task::Command(Command::Fingerprint(fingerprint)) => {
            let identity = link::Identity::load_or_create(&fingerprint.config)?;
            print(&identity.fingerprint().to_string());
            Ok(ExitCode::SUCCESS)
        }
        Task::Command(Command::Identity(identity)) => identity::run(&identity).await,
        Task::Command(Command::Trust(trust)) => trust::run(&trust).await,
        Task::Command(Command::Ca(ca)) => ca::run(&ca),
        Task::Command(Command::List(list)) => list::run(&list).await,
        Task::Command(Command::Status(status)) => list::status(&status).await,
        Task::Command(Command::Resume(resume)) => resume::run(resume).await,
        Task::Command(Command::Settle(settle)) => settle::run(settle).await,
        Task::Command(Command::Cancel(cancel)) => start::cancel(&cancel).await,
        Task::Command(Command::Dump(dump)) => dump::run(dump).await,
        Task::Command(Command::Restore(restore)) => restore::run(restore).await,
        Task::Command(Command::Clone(duplicate)) => duplicate::run(duplicate).await,
        Task::Command(Command::Image(image)) => images::run(image.step),
        Task::Command(Command::Service(asked)) => quick_start::run(asked).await,
        Task::Command(Command::Holder(hold)) => restore::hold(&hold),
    }
}
