//! Where a fault is let happen: two hosts with a line between them that can be cut, a failure point that
//! waits, and the agent that is started again.

use super::Reach;
use super::aftermath::Aftermath;
use super::cell::{Cell, Fault};
use crate::host_init::Status;
use crate::hosts::{CONFIG, Host, RELAY_ADDRESS, Started, TwoHosts};
use crate::relay::Relay;
use crate::{place, wait};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable of the agents' failure points.
const VARIABLE: &str = "MIGRATE_FAIL";

/// What the agents' failure points make when they are reached, and where they wait.
const REACHED: &str = "reached";

/// With every time-out that a lost peer can cost.
const END_LIMIT: Duration = Duration::from_secs(180);

/// How long a line is gone that comes back by itself.
const BLINK: Duration = Duration::from_millis(400);

/// How long a line is gone when the source waits for it without an end: longer than a connection
/// lives without one.
const ABSENCE: Duration = Duration::from_secs(20);

pub(super) struct Ground {
    pub(super) cell: Cell,
    pub(super) hosts: TwoHosts,
    pub(super) agent: Started,
    relay: Relay,
    reached: PathBuf,
}

impl Ground {
    pub(super) fn prepare(cell: Cell, hosts: TwoHosts) -> Result<Self> {
        hosts.introduce()?;
        let reached = hosts.shared().join(REACHED);
        let plan = plan(cell, &reached);
        let agent = start_agent(&hosts.b, (!cell.is_at_source()).then_some(&plan))?;
        let destination = format!("{}:7747", hosts.b.address().v4);
        let relay = Relay::start(&hosts, &hosts.a, &relay_address(), &destination, 1)?;
        Ok(Self { cell, hosts, agent, relay, reached })
    }

    /// `more` are options of the command.
    pub(super) fn start_move(&self, pid: i32, more: &[&str]) -> Result<Started> {
        let (migrate, pid, to) = (place::program("migrate")?, pid.to_string(), relay_address());
        let mut argv = vec![migrate.as_str(), &pid, "--to", &to, "--config", CONFIG, "--json"];
        argv.extend(["--max-rounds", "2"].iter().chain(more));
        // So that there is a lazy phase to fail in.
        if self.cell.step.reach == Reach::Lazy {
            argv.extend(["--lazy", "always"]);
        }
        let plan = plan(self.cell, &self.reached);
        let environment = [(VARIABLE, plan.as_str())];
        self.hosts.a.spawn_with(&argv, &environment[..usize::from(self.cell.is_at_source())])
    }

    /// Waits for the moment and does what the cell says. Without a moment at which it waits, the failure
    /// point does it all by itself.
    pub(super) fn strike(&self, command: &Started) -> Result<()> {
        if self.cell.fault.errno().is_some() {
            return Ok(());
        }
        wait::until(
            wait::PATIENCE,
            || format!("the move to come to {}: {}", self.cell.place(), command.story()),
            || Ok(self.reached.exists().then_some(())),
        )?;
        let (source, destination) = ((&self.hosts.a, command.pid), (&self.hosts.b, self.agent.pid));
        let (own, other) = match self.cell.is_at_source() {
            true => (source, destination),
            false => (destination, source),
        };
        match self.cell.fault {
            Fault::Kill => kill(own)?,
            Fault::KillTheOther => kill(other)?,
            Fault::KillBoth => kill(own).and_then(|()| kill(other))?,
            Fault::Cut | Fault::Blink => self.relay.cut()?,
            Fault::OutOfMemory | Fault::OutOfDescriptors | Fault::DiskFull => {}
        }
        fs::remove_file(&self.reached).context("let the failure point go")?;
        self.heal_in_time()
    }

    /// A line that is not gone until the command has ended.
    fn heal_in_time(&self) -> Result<()> {
        std::thread::sleep(match self.cell.fault {
            Fault::Blink => BLINK,
            Fault::Cut if self.cell.step.reach == Reach::Lazy => ABSENCE,
            _ => return Ok(()),
        });
        self.relay.heal()
    }

    /// A killed agent is started again at once, as systemd does it; then the command has to end.
    pub(super) fn end_of(&mut self, command: &Started) -> Result<()> {
        if self.hosts.b.status(self.agent.pid)? != Status::Running {
            self.agent = start_agent(&self.hosts.b, None)?;
        }
        self.hosts.a.end_of(command.pid, END_LIMIT).with_context(|| command.story())?;
        let has_failed = self.cell.fault.errno().is_none() || self.reached.exists();
        let place = self.cell.place();
        ensure!(has_failed, "the move did not come to {place}: {}", command.story());
        self.relay.heal()
    }

    /// As [`Aftermath::settle`] does; and it runs where the step says.
    pub(super) fn settle(&self, pid: i32, prove: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
        let aftermath = Aftermath { hosts: &self.hosts, pid };
        let host = aftermath.settle(self.agent.pid, self.relay.program.pid, prove)?;
        let reach = self.cell.step.reach;
        let must_stay = reach == Reach::Copying && !self.is_outlived();
        ensure!(!must_stay || host.name() == "hosta", "it was moved");
        let has_left = reach == Reach::Lazy;
        ensure!(!has_left || host.name() == "hostb", "it was given away, and runs on the source");
        Ok(())
    }

    /// A line that comes back, or a peer that was not needed any more: the move may succeed.
    fn is_outlived(&self) -> bool {
        matches!(self.cell.fault, Fault::Blink | Fault::Cut)
    }
}

fn relay_address() -> String {
    format!("{RELAY_ADDRESS}:9999")
}

fn kill((host, pid): (&Host, i32)) -> Result<()> {
    host.signal(pid, Signal::SIGKILL)?;
    host.end_of(pid, wait::PATIENCE).map(drop)
}

fn plan(cell: Cell, reached: &Path) -> String {
    let action = cell.fault.errno().unwrap_or("hold");
    format!("{}={action}:{}", cell.place(), reached.display())
}

fn start_agent(host: &Host, plan: Option<&String>) -> Result<Started> {
    let agent = place::program("dest-agent")?;
    let listen = format!("{}:7747", host.address().v4);
    let argv = [agent.as_str(), "--listen", &listen, "--config", CONFIG];
    let environment: Vec<_> = plan.iter().map(|plan| (VARIABLE, plan.as_str())).collect();
    let agent = host.spawn_with(&argv, &environment)?;
    wait::until(
        wait::PATIENCE,
        || format!("dest-agent to listen: {}", agent.story()),
        || Ok(fs::read_to_string(&agent.stdout)?.starts_with("listening on ").then_some(())),
    )?;
    Ok(agent)
}
