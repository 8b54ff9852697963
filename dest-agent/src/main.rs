//! `dest-agent`: takes running process trees in.

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    dest_agent::cli::Cli::parse().run()
}
