//! A capture as a program on a host.

use super::Passed;
use crate::hosts::{Host, Started};
use crate::{place, wait};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;

#[derive(Debug)]
pub struct RunningCapture {
    program: Started,
}

impl RunningCapture {
    /// Of these interfaces of a host. Returns when it hears.
    pub fn start(host: &Host, interfaces: &[&str]) -> Result<Self> {
        let program = place::program("capture")?;
        let program = host.spawn(&[&[program.as_str()], interfaces].concat())?;
        wait::until(
            wait::PATIENCE,
            || "the capture to hear".into(),
            || {
                let said = || fs::read_to_string(&program.stderr).unwrap_or_default();
                ensure!(host.exists(program.pid), "the capture ended: {}", said());
                Ok(fs::read_to_string(&program.stdout)?.starts_with("hears\n").then_some(()))
            },
        )?;
        Ok(Self { program })
    }

    /// Ends it, and returns everything that passed until now.
    pub fn stop(&self, host: &Host) -> Result<Vec<Passed>> {
        host.signal(self.program.pid, Signal::SIGTERM)?;
        let heard = host.finish(&self.program, wait::PATIENCE)?.success()?;
        let lines = heard.lines().skip(1);
        lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}
