//! After the fault: the operator settles what is open, and then exactly one copy runs.

use crate::hosts::{CONFIG, Host, TwoHosts};
use crate::{place, wait};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// For stubs of a lost peer to go, and for what is in doubt to be settled.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Aftermath<'a> {
    pub(super) hosts: &'a TwoHosts,
    /// The process that was moved, or was to be.
    pub(super) pid: i32,
}

impl<'a> Aftermath<'a> {
    /// Where it runs in the end. `prove` has it prove its state, and ends it. `agent` and `relay` are
    /// the only processes that may be left.
    pub(super) fn settle(
        &self,
        agent: i32,
        relay: i32,
        prove: impl FnOnce(&Host) -> Result<()>,
    ) -> Result<&'a Host> {
        self.resume_all()?;
        let host = self.where_it_runs()?;
        let status = host.read(&format!("/proc/{}/status", self.pid))?;
        ensure!(status.contains("\nTracerPid:\t0\n"), "it is traced still");
        prove(host)?;
        nothing_is_left(&self.hosts.a, relay)?;
        nothing_is_left(&self.hosts.b, agent)?;
        Ok(host)
    }

    /// Until no migration is open: what `migrate status` tells the operator to do.
    fn resume_all(&self) -> Result<()> {
        let migrate = place::program("migrate")?;
        let end = Instant::now() + SETTLE_LIMIT;
        while let Some(id) = self.open_migration(&migrate)? {
            let resume = [&migrate, "resume", &id, "--config", CONFIG, "--json"];
            let said = self.hosts.a.run_within(SETTLE_LIMIT, &resume, &[])?;
            if Instant::now() > end {
                bail!("migration {id} cannot be settled: {}{}", said.stdout, said.stderr);
            }
        }
        Ok(())
    }

    fn open_migration(&self, migrate: &str) -> Result<Option<String>> {
        let listed = self.hosts.a.run(&[migrate, "status", "--json"])?.success()?;
        let entries = listed.lines().map(serde_json::from_str::<Value>);
        let entries = entries.collect::<Result<Vec<_>, _>>().context(listed.clone())?;
        let is_open = |entry: &&Value| entry["state"] != "not begun: nothing was touched";
        Ok(entries.iter().find(is_open).and_then(|e| e["id"].as_str()).map(str::to_owned))
    }

    /// On exactly one host, and not stopped there; on the other not even as a stub.
    fn where_it_runs(&self) -> Result<&'a Host> {
        let pid = self.pid;
        wait::until(
            SETTLE_LIMIT,
            || {
                let [a, b] = [&self.hosts.a, &self.hosts.b].map(|host| state(host, pid));
                format!("one copy of process {pid}; it is {a:?} on hosta and {b:?} on hostb")
            },
            || {
                let both = [&self.hosts.a, &self.hosts.b];
                Ok(match both.map(|host| state(host, pid)) {
                    [Some(state), None] if runs(state) => Some(both[0]),
                    [None, Some(state)] if runs(state) => Some(both[1]),
                    _ => None,
                })
            },
        )
    }
}

fn runs(state: char) -> bool {
    matches!(state, 'R' | 'S' | 'D')
}

/// The state letter of proc_pid_stat(5); None when it is not there, or a zombie that init will reap.
fn state(host: &Host, pid: i32) -> Option<char> {
    let stat = fs::read_to_string(host.path(&format!("/proc/{pid}/stat"))).ok()?;
    let letter = stat.rsplit(") ").next()?.chars().next()?;
    (!matches!(letter, 'Z' | 'X')).then_some(letter)
}

fn nothing_is_left(host: &Host, kept: i32) -> Result<()> {
    let left = || -> Result<BTreeSet<i32>> {
        let entries = fs::read_dir(host.path("/proc"))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let alive =
            names.filter(|&pid: &i32| pid != 1 && pid != kept && state(host, pid).is_some());
        Ok(alive.collect())
    };
    wait::until(
        SETTLE_LIMIT,
        || format!("nothing to be left on {}: {:?}", host.name(), left()),
        || Ok(left()?.is_empty().then_some(())),
    )
}
