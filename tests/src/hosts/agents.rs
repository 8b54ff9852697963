//! The agents on the two hosts: who they are to each other, and moves between them.

use super::{Host, RELAY_ADDRESS, Started, TwoHosts};
use crate::host_init::Status;
use crate::moved::Moved;
use crate::{place, wait};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;

/// Where a host keeps its identity and whom it knows.
pub const CONFIG: &str = "/etc/migrate";

/// The two agents of one host journal apart from each other.
pub const SOURCE_STATE: &str = "/var/lib/migrate/source";
const DESTINATION_STATE: &str = "/var/lib/migrate/destination";

/// How long one move may take, with gigabytes of memory on a loaded machine.
const MOVE_LIMIT: Duration = Duration::from_secs(300);

impl TwoHosts {
    /// Two hosts that trust each other, with an agent on both: a process can go there and back.
    pub fn with_agents() -> Result<Self> {
        let mut hosts = Self::new()?;
        hosts.start_agents()?;
        Ok(hosts)
    }

    pub(super) fn start_agents(&mut self) -> Result<()> {
        self.introduce()?;
        self.agents = vec![start_agent(&self.a)?, start_agent(&self.b)?];
        Ok(())
    }

    /// Exchanges identities: what an operator does once with `migrate fingerprint`.
    pub fn introduce(&self) -> Result<()> {
        for (host, other) in [(&self.a, &self.b), (&self.b, &self.a)] {
            let fingerprint = fingerprint(other)?;
            let authorized = format!("{fingerprint} {}\n", other.name());
            host.write(&format!("{CONFIG}/authorized_hosts"), &authorized)?;
            let names = [other.name(), other.address().v4, other.address().v6, RELAY_ADDRESS];
            let known: String = names.map(|name| format!("{name} {fingerprint}\n")).concat();
            host.write(&format!("{CONFIG}/known_hosts"), &known)?;
        }
        Ok(())
    }

    /// The most memory that either destination agent has ever had resident, in KiB.
    pub fn agent_peak_kib(&self) -> Result<u64> {
        let peaks = self.agents.iter().zip([&self.a, &self.b]);
        let peaks = peaks.map(|(agent, host)| peak_kib(host, agent.pid).context("a dead agent"));
        peaks.collect::<Result<Vec<_>>>()?.into_iter().max().context("no agents were started")
    }

    /// The destination agents, on `a` and on `b`.
    pub fn agent_pids(&self) -> Vec<i32> {
        self.agents.iter().map(|agent| agent.pid).collect()
    }

    /// Moves a process and waits for the command's end, whatever that is.
    pub fn migrate(&self, pid: i32, from: &Host, to: &Host, options: &[&str]) -> Result<Moved> {
        let command = self.start_migrate(pid, from, to.name(), options)?;
        self.finish_migrate(from, &command)
    }

    /// Starts a move without waiting for its end, to any address.
    pub fn start_migrate(
        &self,
        pid: i32,
        from: &Host,
        to: &str,
        options: &[&str],
    ) -> Result<Started> {
        self.start_migrate_within(&[], pid, from, to, options)
    }

    /// The same by another command, which starts `migrate` and ends as it does.
    pub fn start_migrate_within(
        &self,
        within: &[&str],
        pid: i32,
        from: &Host,
        to: &str,
        options: &[&str],
    ) -> Result<Started> {
        let (migrate, pid) = (place::program("migrate")?, pid.to_string());
        let mut argv = [within, &[migrate.as_str(), &pid, "--to", to]].concat();
        argv.extend(["--config", CONFIG, "--state", SOURCE_STATE, "--json"]);
        argv.extend(options);
        from.spawn_with(&argv, &[("RUST_LOG", &log_level())])
    }

    /// Waits for the end of a move that [`Self::start_migrate`] began.
    pub fn finish_migrate(&self, from: &Host, command: &Started) -> Result<Moved> {
        let mut peak = 0;
        let status = wait::until(
            MOVE_LIMIT,
            || "migrate to end".into(),
            || {
                peak = peak_kib(from, command.pid).unwrap_or(0).max(peak);
                Ok(Some(from.status(command.pid)?).filter(|status| *status != Status::Running))
            },
        )?;
        let mut moved = Moved::read(status, command, peak)?;
        if moved.exit != 0 {
            moved.stderr.push_str(&self.agents_said());
        }
        Ok(moved)
    }

    /// Everything that the destination agent of `host` has logged.
    pub fn agent_log(&self, host: &Host) -> Result<String> {
        Ok(fs::read_to_string(&self.agent(host)?.stderr)?)
    }

    /// As `kill -9` does it.
    pub fn kill_agent(&self, host: &Host) -> Result<()> {
        host.signal(self.agent(host)?.pid, Signal::SIGKILL)
    }

    fn agent(&self, host: &Host) -> Result<&Started> {
        let mut agents = self.agents.iter().zip([&self.a, &self.b]);
        let found = agents.find(|(_, at)| at.name() == host.name());
        found.map(|(agent, _)| agent).context("no agents were started")
    }

    /// The end of what either destination agent has logged.
    fn agents_said(&self) -> String {
        let said = |(agent, host): (&Started, &Host)| {
            let log = fs::read_to_string(&agent.stderr).unwrap_or_default();
            let from = log.lines().count().saturating_sub(40);
            let end: Vec<&str> = log.lines().skip(from).collect();
            format!("--- dest-agent on {} said:\n{}\n", host.name(), end.join("\n"))
        };
        self.agents.iter().zip([&self.a, &self.b]).map(said).collect()
    }
}

/// None when the process is gone, or where it cannot be seen.
fn peak_kib(host: &Host, pid: i32) -> Option<u64> {
    if host.is_guest() {
        return None;
    }
    let status = fs::read_to_string(host.path(&format!("/proc/{pid}/status"))).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn fingerprint(host: &Host) -> Result<String> {
    let agent = place::program("dest-agent")?;
    let said = host.run(&[&agent, "fingerprint", "--config", CONFIG])?.success()?;
    ensure!(said.starts_with("SHA256:"), "{} says {said:?} for a fingerprint", host.name());
    Ok(said.trim().to_owned())
}

/// Starts `dest-agent` on a host and waits until it listens.
pub fn start_agent(host: &Host) -> Result<Started> {
    start_agent_with(host, &[])
}

/// The same with more in its environment, such as a failure point.
pub fn start_agent_with(host: &Host, more: &[(&str, &str)]) -> Result<Started> {
    let agent = place::program("dest-agent")?;
    let listen = format!("{}:7747", host.address().v4);
    let argv = [&agent, "--listen", &listen, "--config", CONFIG, "--state", DESTINATION_STATE];
    let level = log_level();
    let agent = host.spawn_with(&argv, &[&[("RUST_LOG", level.as_str())], more].concat())?;
    wait::until(
        wait::PATIENCE,
        || format!("dest-agent on {} to listen", host.name()),
        || {
            if host.status(agent.pid)? != Status::Running {
                bail!("dest-agent ended: {}", fs::read_to_string(&agent.stderr)?);
            }
            Ok(fs::read_to_string(&agent.stdout)?.starts_with("listening on ").then_some(()))
        },
    )?;
    Ok(agent)
}

/// The control socket of [`start_source_agent`], for `migrate --socket`.
pub const SOCKET: &str = "/tmp/source-agent.sock";

/// Starts `source-agent` on a host and waits until it listens.
pub fn start_source_agent(host: &Host) -> Result<Started> {
    let agent = place::program("source-agent")?;
    let argv = [&agent, "--socket", SOCKET, "--config", CONFIG, "--state", SOURCE_STATE];
    let agent = host.spawn_with(&argv, &[("RUST_LOG", &log_level())])?;
    wait::until(
        wait::PATIENCE,
        || format!("source-agent on {} to listen", host.name()),
        || {
            if host.status(agent.pid)? != Status::Running {
                bail!("source-agent ended: {}", fs::read_to_string(&agent.stderr)?);
            }
            Ok(fs::read_to_string(&agent.stdout)?.starts_with("listening on ").then_some(()))
        },
    )?;
    Ok(agent)
}

/// What `migrate list` says on a host.
pub fn listed(host: &Host) -> Result<String> {
    let migrate = place::program("migrate")?;
    host.run(&[&migrate, "list", "--state", SOURCE_STATE, "--socket", SOCKET])?.success()
}

/// The log level of the test run goes for the agents too.
fn log_level() -> String {
    std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into())
}
