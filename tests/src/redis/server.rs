//! A redis server on a host, and the client program run against it.

use super::{Ledger, Report};
use crate::hosts::{Host, Started, TwoHosts};
use crate::{place, wait};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

pub const PORT: &str = "6379";

/// Filling and verifying hundreds of MiB on a loaded machine.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);

/// Starts redis-server without any persistence: what it has is in its memory alone.
pub fn start(hosts: &TwoHosts, host: &Host) -> Result<Started> {
    start_within(hosts, host, &[])
}

/// The same by another command, which becomes redis-server.
pub fn start_within(hosts: &TwoHosts, host: &Host, within: &[&str]) -> Result<Started> {
    let directory = place::text(hosts.shared())?;
    let argv = [
        within,
        &["redis-server", "--port", PORT, "--dir", &directory, "--save", ""][..],
        &["--appendonly", "no", "--bind", "0.0.0.0", "::", "--protected-mode", "no"],
    ];
    let server = host.spawn(&argv.concat())?;
    wait::until(
        wait::PATIENCE,
        || "redis to listen".into(),
        || {
            let said = fs::read_to_string(&server.stdout)?;
            ensure!(host.exists(server.pid), "redis-server ended: {said}");
            Ok(said.contains("Ready to accept connections").then_some(()))
        },
    )?;
    Ok(server)
}

/// Runs the client program on `from` against the server on `at`, to its end.
pub fn client(from: &Host, at: &Host, action: &[&str]) -> Result<()> {
    let program = place::program("redis-client")?;
    let address = format!("{}:{PORT}", at.address().v4);
    let argv = [&[program.as_str(), "--at", &address], action].concat();
    let output = from.run_within(CLIENT_LIMIT, &argv, &[])?;
    output.success().map(drop).with_context(|| format!("redis-client {}", action.join(" ")))
}

/// A client that keeps writing on one host, and looks for the server on both.
#[derive(Debug)]
pub struct RunningWriter {
    program: Started,
    pub ledger: PathBuf,
}

impl RunningWriter {
    pub fn start(hosts: &TwoHosts, host: &Host) -> Result<Self> {
        let ledger = hosts.shared().join("ledger");
        let program = place::program("redis-client")?;
        let addresses = [&hosts.a, &hosts.b].map(|host| format!("{}:{PORT}", host.address().v4));
        let argv = [
            &program,
            "--at",
            &addresses[0],
            "--at",
            &addresses[1],
            "write",
            &place::text(&ledger)?,
        ];
        Ok(Self { program: host.spawn(&argv)?, ledger })
    }

    pub fn report(&self) -> Result<Report> {
        let said = fs::read_to_string(&self.program.stdout)?;
        let report = said.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        Ok(report.unwrap_or_default())
    }

    /// Waits until a thousand more writes are acknowledged.
    pub fn goes_on(&self) -> Result<()> {
        let enough = self.report()?.acknowledged + 1000;
        wait::until(
            wait::PATIENCE,
            || "redis' client to go on writing".into(),
            || Ok((self.report()?.acknowledged >= enough).then_some(())),
        )
    }

    /// Ends it. Its ledger is then complete.
    pub fn stop(&self, host: &Host) -> Result<(Report, Ledger)> {
        host.signal(self.program.pid, Signal::SIGTERM)?;
        host.finish(&self.program, wait::PATIENCE)?.success()?;
        let ledger = serde_json::from_slice(&fs::read(&self.ledger)?)?;
        Ok((self.report()?, ledger))
    }
}
