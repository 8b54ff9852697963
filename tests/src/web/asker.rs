//! `wrk`: many connections that are kept, each with one request after the other.

use super::{Page, tcp_counter};
use crate::hosts::{Host, Started};
use crate::wait;
use crate::workload::SOURCES;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::fs;

pub const CONNECTIONS: u64 = 100;

#[derive(Debug)]
pub struct Asker {
    program: Started,
    /// That this host has opened, with those of `wrk`; `None` when each request makes one anew.
    opened: Option<u64>,
}

/// What `check_page.lua` says at the end.
#[derive(Clone, Debug, Deserialize)]
pub struct Answers {
    pub requests: u64,
    pub wrong: u64,
    /// Of connections: refused, closed or reset, and answers that took longer than two seconds.
    pub errors: u64,
    pub longest_ms: f64,
}

impl Asker {
    /// Starts it on a host of clients, and waits until all its connections are there.
    pub fn start(host: &Host, url: &str, page: &Page) -> Result<Self> {
        let mut asker = Self::run(host, url, page, &[])?;
        asker.opened = Some(wait::until(
            wait::PATIENCE,
            || format!("{CONNECTIONS} connections to {url}"),
            || {
                let opened = tcp_counter(host, "ActiveOpens")?;
                let open = tcp_counter(host, "CurrEstab")?;
                Ok((open >= CONNECTIONS).then_some(opened))
            },
        )?);
        Ok(asker)
    }

    /// One that has every connection closed by the server with the answer.
    pub fn start_anew_each_time(host: &Host, url: &str, page: &Page) -> Result<Self> {
        Self::run(host, url, page, &["-H", "Connection: close"])
    }

    fn run(host: &Host, url: &str, page: &Page, how: &[&str]) -> Result<Self> {
        let script = format!("{SOURCES}/check_page.lua");
        let connections = CONNECTIONS.to_string();
        let before = tcp_counter(host, "ActiveOpens")?;
        // It is ended long before its time.
        let program = host.spawn(
            &[
                &["wrk", "-t2", "-c", &connections, "-d600", "-s", &script][..],
                how,
                &[url, "--", &page.path()?],
            ]
            .concat(),
        )?;
        wait::until(
            wait::PATIENCE,
            || format!("connections to {url}"),
            || {
                let said = || fs::read_to_string(&program.stderr).unwrap_or_default();
                ensure!(host.exists(program.pid), "wrk ended: {}", said());
                let opened = tcp_counter(host, "ActiveOpens")?;
                Ok((opened >= before + CONNECTIONS).then_some(()))
            },
        )?;
        Ok(Self { program, opened: None })
    }

    /// Ends it. Every answer has to be right, over the connections that it had at the beginning if it
    /// keeps them.
    pub fn stop(&self, host: &Host) -> Result<Answers> {
        let opened = tcp_counter(host, "ActiveOpens")?;
        host.signal(self.program.pid, Signal::SIGINT)?;
        let said = host.finish(&self.program, wait::PATIENCE)?.success()?;
        let answers = said.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        let answers: Answers = answers.with_context(|| format!("wrk says {said}"))?;
        ensure!(answers.wrong == 0 && answers.errors == 0, "{answers:?}: {said}");
        let before = self.opened.unwrap_or(opened);
        ensure!(opened == before, "{} connections were made anew", opened - before);
        Ok(answers)
    }
}
