//! A crowd of clients as a program on a host.

use super::CrowdReport;
use super::server::PORT;
use crate::hosts::{Host, Started};
use crate::{place, wait};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;

#[derive(Debug)]
pub struct RunningCrowd {
    program: Started,
}

impl RunningCrowd {
    /// `count` clients on `host`, of a server at `address`.
    pub fn start(host: &Host, address: &str, count: usize) -> Result<Self> {
        Self::start_patient(host, address, count, 1)
    }

    /// They wait so many seconds for an answer before they call it lost.
    pub fn start_patient(
        host: &Host,
        address: &str,
        count: usize,
        patience_s: u64,
    ) -> Result<Self> {
        let program = place::program("redis-client")?;
        let address = format!("{address}:{PORT}");
        let [count, patience_s] = [count.to_string(), patience_s.to_string()];
        let argv = [&program, "--at", &address, "crowd", &count, &patience_s];
        Ok(Self { program: host.spawn(&argv)? })
    }

    /// All that they have said.
    pub fn reports(&self) -> Result<Vec<CrowdReport>> {
        let said = fs::read_to_string(&self.program.stdout)?;
        Ok(said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Waits until a thousand more writes are acknowledged. An error when one was lost.
    pub fn goes_on(&self) -> Result<()> {
        let so_far = |reports: &[CrowdReport]| reports.last().map_or(0, |last| last.acknowledged);
        let enough = so_far(&self.reports()?) + 1000;
        wait::until(
            wait::PATIENCE,
            || "redis' clients to go on writing".into(),
            || {
                let reports = self.reports()?;
                let failures = reports.iter().flat_map(|report| &report.failures);
                let failures: Vec<&String> = failures.collect();
                ensure!(failures.is_empty(), "{failures:?}");
                Ok((so_far(&reports) >= enough).then_some(()))
            },
        )
    }

    /// How many reports there are, for [`Self::longest_stall_ms`].
    pub fn mark(&self) -> Result<usize> {
        Ok(self.reports()?.len())
    }

    /// The longest that any client has waited for an answer since then.
    pub fn longest_stall_ms(&self, mark: usize) -> Result<f64> {
        let reports = self.reports()?;
        let stalls = reports.iter().skip(mark).map(|report| report.longest_stall_us);
        #[allow(clippy::cast_precision_loss, reason = "microseconds of a test")]
        Ok(stalls.max().unwrap_or(0) as f64 / 1e3)
    }

    /// Ends it. What it says has to be without a failure.
    pub fn stop(&self, host: &Host) -> Result<CrowdReport> {
        host.signal(self.program.pid, Signal::SIGTERM)?;
        host.finish(&self.program, wait::PATIENCE)?.success()?;
        let last = self.reports()?.pop().context("a report")?;
        ensure!(last.failures.is_empty(), "{:?}", last.failures);
        Ok(last)
    }
}
