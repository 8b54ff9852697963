//! Another `migrate` that restores the tree and stays: as long as pages are missing, or as the first
//! process of a PID namespace for as long as that lives.

use super::course::Running;
use super::{foreground, seclusion};
use crate::cli::Restore;
use crate::events::RestoreSummary;
use crate::output::{Output, print};
use crate::signals::Signals;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;
use tokio::task::spawn_blocking;

/// The beginning of the last line that it says, before the id of the tree's first process and the
/// number of its pages that are still to be read.
const IT_RUNS: &str = "it runs: ";

/// Says it to whoever has started us.
pub(super) fn say_that_it_runs(running: &Running) {
    print(&format!("{IT_RUNS}{} {}", running.pid, running.missing_pages));
}

/// Starts it, and returns when the tree runs; or when it has ended, for who does not detach.
pub(super) async fn run(restore: Restore) -> Result<ExitCode> {
    let signals = (!restore.detach).then(Signals::watch).transpose()?;
    let pidfile = restore.pidfile.as_ref().map(|path| {
        let file = File::create(path).with_context(|| format!("write {}", path.display()));
        file.map(|file| (path, file))
    });
    let pidfile = pidfile.transpose()?;
    let asked = restore.clone();
    let started = spawn_blocking(move || start(&asked)).await?;
    let Started { child, restored } = match started.context("start who restores the tree")? {
        Ok(started) => started,
        Err(code) => return Ok(code.into()),
    };
    restored.tell(&Output::new(restore.json));
    if let Some((path, mut file)) = pidfile {
        let written = writeln!(file, "{}", restored.pid);
        written.with_context(|| format!("write {}", path.display()))?;
    }
    match signals {
        Some(signals) => foreground::pass_on_until_it_ends(signals, child.id().cast_signed()).await,
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Whoever has a tree that runs.
#[derive(Debug)]
pub(crate) struct Started {
    child: Child,
    /// The tree, with the id that this host has for its first process.
    pub(crate) restored: RestoreSummary,
}

/// Returns when the tree runs, or with the exit code of one that did not come so far; what it has
/// to say until then is said.
pub(crate) fn start(restore: &Restore) -> io::Result<Result<Started, u8>> {
    let began = Instant::now();
    let mut child = match restore.pid_namespace {
        true => seclusion::spawn(&mut command(restore))?,
        false => command(restore).spawn()?,
    };
    let said = child.stdout.take().map(BufReader::new);
    for line in said.into_iter().flat_map(BufReader::lines) {
        let line = line?;
        let Some((pid, missing_pages)) = running(&line) else {
            print(&line);
            continue;
        };
        let pid = match restore.pid_namespace {
            true => seclusion::outside(child.id(), pid),
            false => Some(pid),
        };
        // One that is not there has ended already.
        let Some(pid) = pid else { break };
        let elapsed_ms = began.elapsed().as_secs_f64() * 1000.0;
        let restored = RestoreSummary { pid, elapsed_ms, missing_pages };
        return Ok(Ok(Started { child, restored }));
    }
    let code = child.wait()?.code().unwrap_or(4);
    Ok(Err(u8::try_from(code).unwrap_or(4)))
}

/// The first process of a tree that runs, and how many of its pages are still to come.
pub(crate) fn running(line: &str) -> Option<(i32, u64)> {
    let (pid, missing_pages) = line.strip_prefix(IT_RUNS)?.split_once(' ')?;
    Some((pid.parse().ok()?, missing_pages.parse().ok()?))
}

fn command(restore: &Restore) -> Command {
    let Restore { directory, state, tcp, .. } = restore;
    let mut command = Command::new("/proc/self/exe");
    command.args(["restore", "--is-for-another", "--images-dir"]).arg(directory);
    command.arg("--state").arg(&state.state).args(["--tcp", tcp.word()]);
    let flags = [
        (restore.detach, "--detach"),
        (restore.lazy, "--lazy"),
        (restore.json, "--json"),
        (restore.copy_files, "--copy-files"),
        (restore.pid_namespace, "--pid-namespace"),
        (restore.network_namespace, "--network-namespace"),
    ];
    command.args(flags.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, flag)| flag));
    for path in &restore.opening.files {
        command.arg("--identity").arg(path);
    }
    // A group of its own: Ctrl-C is for whoever waits in the terminal, and is passed on.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}
