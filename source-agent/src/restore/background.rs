//! `migrate restore --detach --lazy`: somebody has to bring the pages, and the command returns.

use crate::cli::Restore;
use crate::output::print;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

/// The last line of whoever stays, for whoever returns.
pub(super) const IT_RUNS: &str = "it runs";

/// Starts another process that restores the tree and stays until all of its pages are there.
pub(super) fn start(restore: &Restore) -> io::Result<ExitCode> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("restore").arg("--lazy").arg("--says-when-it-runs");
    command.arg("--images-dir").arg(&restore.directory);
    command.arg("--state").arg(&restore.state.state);
    if let Some(path) = &restore.pidfile {
        command.arg("--pidfile").arg(path);
    }
    if restore.json {
        command.arg("--json");
    }
    // A group of its own: Ctrl-C is for whoever still waits in the terminal.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let said = child.stdout.take().map(BufReader::new);
    for line in said.into_iter().flat_map(BufReader::lines) {
        match line? {
            line if line == IT_RUNS => return Ok(ExitCode::SUCCESS),
            line => print(&line),
        }
    }
    let code = child.wait()?.code().unwrap_or(4);
    Ok(u8::try_from(code).unwrap_or(4).into())
}
