//! Client and server as programs on hosts.

use super::{PORT, Report};
use crate::hosts::{Host, Started};
use crate::{place, wait};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;

/// Starts the server on a host, and waits until it listens.
pub fn start_server(host: &Host) -> Result<Started> {
    let server = host.spawn(&[&place::program("bulk")?, "serve", &PORT.to_string()])?;
    wait::until(
        wait::PATIENCE,
        || "the bulk server to listen".into(),
        || Ok(fs::read_to_string(&server.stdout)?.starts_with("listening").then_some(())),
    )?;
    Ok(server)
}

#[derive(Debug)]
pub struct RunningClient {
    program: Started,
}

/// A bad line may take some seconds over what is still queued.
const END_LIMIT: Duration = Duration::from_secs(120);

impl RunningClient {
    /// `direction` is `download` or `upload`. IPv6 addresses stand in brackets.
    pub fn start(host: &Host, direction: &str, address: &str) -> Result<Self> {
        Self::start_slow(host, direction, address, 0)
    }

    /// One that rests so many milliseconds after every quarter of a MiB.
    pub fn start_slow(host: &Host, direction: &str, address: &str, pause_ms: u64) -> Result<Self> {
        let (server, pause_ms) = (format!("{address}:{PORT}"), pause_ms.to_string());
        let argv = [&place::program("bulk")?, direction, &server, &pause_ms];
        Ok(Self { program: host.spawn(&argv)? })
    }

    fn reports(&self) -> Result<Vec<Report>> {
        let said = fs::read_to_string(&self.program.stdout)?;
        Ok(said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// How many bytes have passed.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.reports()?.last().map_or(0, |report| report.bytes))
    }

    /// Waits until so many more bytes have passed.
    pub fn carries(&self, host: &Host, more: u64) -> Result<()> {
        let enough = self.bytes()? + more;
        wait::until(
            wait::PATIENCE,
            || format!("byte {enough} of the stream, from {:?}", self.bytes()),
            || {
                let said = || fs::read_to_string(&self.program.stderr).unwrap_or_default();
                ensure!(host.exists(self.program.pid), "the client ended: {}", said());
                Ok((self.bytes()? >= enough).then_some(()))
            },
        )
    }

    /// How many reports there are, for [`Self::longest_pause_ms`].
    pub fn mark(&self) -> Result<usize> {
        Ok(self.reports()?.len())
    }

    /// The longest time since then in which nothing passed.
    pub fn longest_pause_ms(&self, mark: usize) -> Result<f64> {
        let reports = self.reports()?;
        let pauses = reports.iter().skip(mark).map(|report| report.longest_pause_us);
        #[allow(clippy::cast_precision_loss, reason = "microseconds of a test")]
        Ok(pauses.max().unwrap_or(0) as f64 / 1e3)
    }

    /// Ends it. Both ends have to agree on every byte.
    pub fn stop(&self, host: &Host) -> Result<Report> {
        host.signal(self.program.pid, Signal::SIGTERM)?;
        host.finish(&self.program, END_LIMIT)?.success()?;
        let last = self.reports()?.pop().context("a report")?;
        ensure!(last.is_complete, "it ended before its time: {last:?}");
        Ok(last)
    }
}
