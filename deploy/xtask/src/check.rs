//! What a change is held against before anything runs.

use crate::command::{self, cargo, say};
use crate::{fuzz, install, test};
use anyhow::Result;
use std::process::{Command, ExitCode};

pub(crate) fn run(long: bool) -> Result<ExitCode> {
    install::for_building()?;
    command::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    command::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    if long {
        check_dependencies()?;
        fuzz::run_all()?;
        return test::run(None, true);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where tools are installed that only this command uses.
const TOOLS: &str = "target/tools";

/// Licences, sources, doubled and banned crates, and known weaknesses.
fn check_dependencies() -> Result<()> {
    let deny = format!("{TOOLS}/bin/cargo-deny");
    if !command::succeeds(&deny, &["--version"]) {
        let install = ["install", "cargo-deny", "--locked", "--root", TOOLS];
        if let Err(error) = command::run(&mut cargo(&install)) {
            return say(&format!("SKIPPED cargo deny: it cannot be installed here: {error:#}"));
        }
    }
    // Of the four, advisories alone needs a database from the network.
    let mut checks = vec!["bans", "licenses", "sources"];
    match command::succeeds(&deny, &["fetch", "db"]) {
        true => checks.push("advisories"),
        false => say("SKIPPED cargo deny check advisories: the database cannot be fetched")?,
    }
    let mut check = Command::new(&deny);
    command::run(check.args(["--config", "deploy/deny.toml", "check"]).args(checks))
}
