//! The demonstration, from an empty machine to its closing text.

use crate::{command, install};
use anyhow::Result;
use std::process::Command;

pub(crate) fn run(mib: u64) -> Result<()> {
    install::for_scenarios()?;
    let build = ["build", "--release", "--workspace", "--bins"];
    command::run(&mut command::cargo(&build))?;
    command::run(Command::new("target/release/demo").args(["--mib", &mib.to_string()]))
}
