//! The commands that start a slow program from where it was stopped.

use super::State;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct QuickStart {
    #[command(subcommand)]
    pub(crate) step: QuickStartStep,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuickStartStep {
    /// Start it from its image if that fits, else normally; stay until it ends, and end as it does
    Run(OneService),
    /// Store it in its image and end it, so that the next start is quick
    Stop(OneService),
    /// Throw its image away: the next start is a normal one
    Discard(OneService),
    #[command(hide = true)]
    Keep(OneService),
    #[command(hide = true)]
    Begin(Begin),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct OneService {
    /// What it is called: `/etc/migrate/services/NAME.conf` says what it is
    pub(crate) name: String,
    /// Where `services/NAME.conf` is
    #[arg(long, value_name = "DIR", default_value = link::DIRECTORY)]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) state: State,
}

/// Becomes the program, as the leader of a session of its own.
#[derive(Debug, Args)]
pub(crate) struct Begin {
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}
