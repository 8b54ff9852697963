//! Running other programs, with what is run shown first.

use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The top of the workspace. This crate stands two levels below it.
pub(crate) fn workspace() -> Result<PathBuf> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let top = own.ancestors().nth(2).context("the workspace above deploy/xtask")?;
    Ok(top.to_path_buf())
}

/// The cargo that started us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments);
    command
}

/// Runs to the end and fails when the command does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    show(command)?;
    let status = command.status().with_context(|| format!("run {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

/// Whether a command can be run and succeeds; it says nothing.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

pub(crate) fn show(command: &Command) -> Result<()> {
    say(&format!("$ {}", shown(command)))
}

pub(crate) fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_os_string();
    let words: Vec<_> = std::iter::once(name.as_os_str()).chain(command.get_args()).collect();
    words.join(OsStr::new(" ")).to_string_lossy().into_owned()
}
