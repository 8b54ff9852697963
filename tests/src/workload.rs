//! Programs that prove their own state: building them, running them, and reading what they say.
//!
//! Each is one file in `tests/workloads/`, named after the kind or aspect that it proves. They are
//! C, because what they do is mostly system calls that a safe language would wrap.

use crate::host_init::Status;
use crate::hosts::{Host, Started};
use crate::{place, wait};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the sources of the workloads are.
pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads");

/// The path of a built workload. Builds it first when its source is newer.
pub fn executable(name: &str) -> Result<String> {
    let source = Path::new(SOURCES).join(format!("{name}.c"));
    let built = place::made("workloads")?.join(name);
    let headers = ["prove.h", "heart.h"].map(|header| Path::new(SOURCES).join(header));
    // Tests run in parallel, also in several processes. One builds and the others wait: a program
    // whose file is replaced while it runs is a different test.
    let lock = fs::File::create(built.with_extension("lock")).context("lock a workload")?;
    lock.lock().context("wait for another test to build a workload")?;
    for part in [&source, &headers[0], &headers[1]] {
        if is_older(&built, part)? {
            compile(&source, &built)?;
        }
    }
    place::text(&built)
}

fn is_older(built: &Path, source: &Path) -> Result<bool> {
    let changed = fs::metadata(source).with_context(|| format!("find {}", source.display()))?;
    match fs::metadata(built) {
        Ok(built) => Ok(built.modified()? < changed.modified()?),
        Err(_) => Ok(true),
    }
}

fn compile(source: &Path, built: &Path) -> Result<()> {
    let mine = built.with_extension("new");
    let status = Command::new("cc")
        .args(["-O2", "-g", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&mine, source])
        .status()
        .context("run cc (package gcc)")?;
    ensure!(status.success(), "cc failed on {}", source.display());
    fs::rename(&mine, built).with_context(|| format!("put {} in place", built.display()))
}

/// Gives a host what workloads have to find there when they come: a FIFO of its own (the two hosts share a
/// kernel, and so would share the bytes of one), and the right to ping.
pub fn make_ready(host: &Host) -> Result<()> {
    host.run(&["mkfifo", "/tmp/fifo"])?.success()?;
    let permit = "echo 0 0 > /proc/sys/net/ipv4/ping_group_range";
    host.run(&["sh", "-c", permit])?.success().map(drop)
}

/// A workload that runs on one host or the other; its output file is the same on both.
#[derive(Debug)]
pub struct Workload {
    pub name: String,
    pub pid: i32,
    output: PathBuf,
    errors: PathBuf,
}

impl Workload {
    /// Starts it and waits until its object exists.
    pub fn start(host: &Host, name: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_with(host, name, arguments, &[])
    }

    pub fn start_with(
        host: &Host,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let executable = executable(name)?;
        let argv: Vec<&str> = [executable.as_str()].iter().chain(arguments).copied().collect();
        Self::start_program(host, name, &argv, environment)
    }

    /// Any program that says the same lines.
    pub fn start_program(
        host: &Host,
        name: &str,
        argv: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let Started { pid, stdout, stderr } = host.spawn_with(argv, environment)?;
        let workload = Self { name: name.into(), pid, output: stdout, errors: stderr };
        workload.wait_for(host, "ready", |said| Ok(said.lines().next() == Some("ready")))?;
        Ok(workload)
    }

    /// Waits for two checks that begin after now, on the host where it should run: the first good
    /// line may tell of a check from before a move.
    pub fn proves_itself(&self, host: &Host) -> Result<()> {
        let enough = good_checks(&self.said()?)? + 2;
        self.wait_for(host, "good checks", |said| Ok(good_checks(said)? >= enough))
    }

    /// Asks for the last check and waits for its end.
    pub fn stop(&self, host: &Host) -> Result<()> {
        host.signal(self.pid, Signal::SIGTERM)?;
        let status = host.end_of(self.pid, wait::PATIENCE)?;
        let said = self.said()?;
        good_checks(&said).with_context(|| format!("{} on {}", self.name, host.name()))?;
        ensure!(said.ends_with("\ndone\n"), "{} ended with {status:?}: {}", self.name, tail(&said));
        // Unknown: it was moved here and its parent on this host was the agent, which reaped it.
        let is_good = matches!(status, Status::Exited(0) | Status::Unknown);
        ensure!(is_good, "{} said done, but ended with {status:?}", self.name);
        Ok(())
    }

    /// Everything on its standard output so far, without a line that is half written.
    pub fn said(&self) -> Result<String> {
        let bytes = fs::read(&self.output).context("read what a workload said")?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(text.rsplit_once('\n').map_or_else(String::new, |(whole, _)| format!("{whole}\n")))
    }

    fn wait_for(
        &self,
        host: &Host,
        what: &str,
        is_there: impl Fn(&str) -> Result<bool>,
    ) -> Result<()> {
        let name = || format!("{what} from {} on {}: {:?}", self.name, host.name(), self.tail());
        wait::until(wait::PATIENCE, name, || {
            let said = self.said()?;
            if is_there(&said).with_context(|| format!("{} on {}", self.name, host.name()))? {
                return Ok(Some(()));
            }
            if !host.exists(self.pid) {
                bail!("{} is not on {}: {:?}", self.name, host.name(), self.tail());
            }
            Ok(None)
        })
    }

    fn tail(&self) -> String {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        format!("{} {errors}", tail(&self.said().unwrap_or_default()))
    }
}

/// How many checks were good. An error when one was bad, or when the numbers do not count up: then
/// two copies write, or the file's offset was lost.
pub fn good_checks(said: &str) -> Result<u64> {
    let mut good = 0;
    for line in said.lines().filter(|line| !matches!(*line, "ready" | "done")) {
        let number = line.strip_prefix("ok ").and_then(|number| number.parse::<u64>().ok());
        ensure!(number == Some(good + 1), "after {good} good checks it says {line:?}");
        good += 1;
    }
    Ok(good)
}

fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_checks_count_up() {
        assert_eq!(good_checks("ready\nok 1\nok 2\ndone\n").unwrap(), 2);
    }

    #[test]
    fn a_bad_line_is_an_error_that_says_it() {
        let error = good_checks("ready\nok 1\nBAD the count is 3\nok 2\n").unwrap_err();
        assert!(error.to_string().contains("the count is 3"));
    }

    #[test]
    fn two_copies_that_write_are_noticed() {
        assert!(good_checks("ready\nok 1\nok 2\nok 2\n").is_err());
        assert!(good_checks("ready\nok 1\nok 3\n").is_err());
    }
}
