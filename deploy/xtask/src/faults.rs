//! What can go wrong, tried: the matrix of faults, and random ones for as long as one likes.

use crate::{command, install};
use anyhow::Result;
use std::process::{Command, ExitCode};

pub(crate) fn matrix(quick: bool, names: &[String]) -> Result<ExitCode> {
    build()?;
    let mut faults = Command::new("target/debug/faults");
    command::run(faults.args(quick.then_some("--quick")).args(names))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn soak(minutes: u64, seed: Option<u64>) -> Result<ExitCode> {
    build()?;
    let mut soak = Command::new("target/debug/soak");
    soak.arg(minutes.to_string()).args(seed.map(|seed| seed.to_string()));
    command::run(&mut soak)?;
    Ok(ExitCode::SUCCESS)
}

/// With debug assertions: only such builds have failure points.
fn build() -> Result<()> {
    install::for_scenarios()?;
    command::run(&mut command::cargo(&["build", "--workspace", "--bins"]))
}
