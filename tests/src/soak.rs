//! Programs that go to and fro under random faults for as long as one likes. What happens follows
//! from the seed; when it happens is the machine's business.

use crate::host_init::Status;
use crate::hosts::{CONFIG, Host, RELAY_ADDRESS, Started, TwoHosts, start_agent};
use crate::relay::Relay;
use crate::workload::{SOURCES, Workload};
use crate::{place, wait};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};

const RELAY_PORT: u16 = 9999;
const MOVE_LIMIT: Duration = Duration::from_secs(300);
/// The moment of a fault, after the command has begun.
const FAULT_AFTER_MS_MAX: u64 = 1500;
/// Longer than a connection lives without a line.
const CUT: Duration = Duration::from_secs(18);
const BLINK: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Nothing,
    SourceKilled,
    DestinationKilled,
    BothKilled,
    Blink,
    Cut,
    Cancelled,
}

const FAULTS: [Fault; 8] = [
    Fault::Nothing,
    Fault::Nothing,
    Fault::SourceKilled,
    Fault::DestinationKilled,
    Fault::BothKilled,
    Fault::Blink,
    Fault::Cut,
    Fault::Cancelled,
];

/// What was done, for the last line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Soaked {
    pub moves: u32,
    pub faults: u32,
    pub arrived: u32,
}

/// Until `time` is over. The error says which move broke the promise.
pub fn soak(time: Duration, seed: u64, tell: impl Fn(&str)) -> Result<Soaked> {
    let mut soak = Soak::begin(seed)?;
    let (mut soaked, began) = (Soaked::default(), Instant::now());
    while began.elapsed() < time {
        let index = soak.one_of(soak.programs.len());
        let fault = FAULTS[soak.one_of(FAULTS.len())];
        let story = format!("move {} ({}, {fault:?})", soaked.moves, soak.programs[index].name);
        let has_arrived = soak.step(index, fault).with_context(|| story.clone())?;
        soaked.moves += 1;
        soaked.faults += u32::from(!matches!(fault, Fault::Nothing));
        soaked.arrived += u32::from(has_arrived);
        tell(&format!("{story}: {}", if has_arrived { "it went" } else { "it stayed" }));
    }
    soak.end()?;
    Ok(soaked)
}

struct Soak {
    hosts: TwoHosts,
    /// On `a` and on `b`.
    agents: [Started; 2],
    /// On `a` towards `b`; the way back has no relay.
    relay: Relay,
    programs: Vec<Workload>,
    random: u64,
}

impl Soak {
    fn begin(seed: u64) -> Result<Self> {
        let hosts = TwoHosts::new()?;
        hosts.introduce()?;
        let agents = [start_agent(&hosts.a)?, start_agent(&hosts.b)?];
        let listen = format!("{RELAY_ADDRESS}:{RELAY_PORT}");
        let relay = Relay::start(&hosts, &hosts.a, &listen, "192.0.2.2:7747", seed)?;
        let python = ["/usr/bin/python3", &format!("{SOURCES}/pytree.py")];
        let programs = vec![
            Workload::start(&hosts.a, "writer", &["16"])?,
            Workload::start(&hosts.a, "threads", &["50"])?,
            Workload::start(&hosts.a, "tree", &[])?,
            Workload::start_program(&hosts.a, "python", &python, &[])?,
        ];
        Ok(Self { hosts, agents, relay, programs, random: seed })
    }

    /// The generator of [`crate::relay::Path`].
    fn chance(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % below
    }

    fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.chance(count as u64)).expect("less than a usize is one")
    }

    /// Whether it arrived. It runs on exactly one host afterwards, in any case.
    fn step(&mut self, index: usize, fault: Fault) -> Result<bool> {
        let is_on_a = runs_on(&self.hosts.a, self.programs[index].pid);
        let after = Duration::from_millis(self.chance(FAULT_AFTER_MS_MAX));
        let command = self.start_move(index, is_on_a)?;
        std::thread::sleep(after);
        self.strike(fault, is_on_a, &command)?;
        self.restart_agents()?;
        let from = self.host(is_on_a);
        from.end_of(command.pid, MOVE_LIMIT)?;
        self.settle(is_on_a)?;
        let program = &self.programs[index];
        let is_on_a_now = self.where_it_runs(program.pid)?;
        program.proves_itself(self.host(is_on_a_now)).with_context(|| command.story())?;
        Ok(is_on_a_now != is_on_a)
    }

    fn host(&self, is_a: bool) -> &Host {
        if is_a { &self.hosts.a } else { &self.hosts.b }
    }

    fn start_move(&self, index: usize, is_on_a: bool) -> Result<Started> {
        let (migrate, pid) = (place::program("migrate")?, self.programs[index].pid.to_string());
        let relayed = format!("{RELAY_ADDRESS}:{RELAY_PORT}");
        let to = if is_on_a { relayed.as_str() } else { "hosta" };
        let argv = [&migrate, &pid, "--to", to, "--config", CONFIG, "--json", "--bandwidth", "400"];
        self.host(is_on_a).spawn(&argv)
    }

    fn strike(&self, fault: Fault, is_on_a: bool, command: &Started) -> Result<()> {
        let source = (self.host(is_on_a), command.pid);
        let destination = (self.host(!is_on_a), self.agents[usize::from(is_on_a)].pid);
        match fault {
            Fault::Nothing => Ok(()),
            Fault::SourceKilled => kill(source),
            Fault::DestinationKilled => kill(destination),
            Fault::BothKilled => kill(source).and_then(|()| kill(destination)),
            Fault::Blink => self.cut_for(BLINK),
            Fault::Cut => self.cut_for(CUT),
            Fault::Cancelled => end(source, Signal::SIGINT),
        }
    }

    fn cut_for(&self, time: Duration) -> Result<()> {
        self.relay.cut()?;
        std::thread::sleep(time);
        self.relay.heal()
    }

    fn restart_agents(&mut self) -> Result<()> {
        for (host, agent) in [&self.hosts.a, &self.hosts.b].into_iter().zip(&mut self.agents) {
            if host.status(agent.pid)? != Status::Running {
                *agent = start_agent(host)?;
            }
        }
        Ok(())
    }

    /// What an operator does after a command that was killed.
    fn settle(&self, is_on_a: bool) -> Result<()> {
        let (host, migrate) = (self.host(is_on_a), place::program("migrate")?);
        wait::until(
            MOVE_LIMIT,
            || "every migration to be settled".into(),
            || {
                let listed = host.run(&[&migrate, "status", "--json"])?.success()?;
                let Some(line) = listed.lines().find(|line| !line.contains("not begun")) else {
                    return Ok(Some(()));
                };
                let entry: serde_json::Value = serde_json::from_str(line)?;
                let id = entry["id"].as_str().context("an entry without an id")?;
                host.run_within(MOVE_LIMIT, &[&migrate, "resume", id, "--config", CONFIG], &[])?;
                Ok(None)
            },
        )
    }

    /// Whether on `a`; it must be on exactly one of them.
    fn where_it_runs(&self, pid: i32) -> Result<bool> {
        wait::until(
            MOVE_LIMIT,
            || format!("exactly one copy of process {pid}"),
            || {
                let on = [&self.hosts.a, &self.hosts.b].map(|host| host.exists(pid));
                let runs = [&self.hosts.a, &self.hosts.b].map(|host| runs_on(host, pid));
                Ok((on[0] != on[1] && on == runs).then_some(on[0]))
            },
        )
    }

    fn end(self) -> Result<()> {
        for program in &self.programs {
            let is_on_a = self.where_it_runs(program.pid)?;
            program.stop(self.host(is_on_a))?;
        }
        Ok(())
    }
}

fn kill(of: (&Host, i32)) -> Result<()> {
    end(of, Signal::SIGKILL)
}

/// It may have come to its end before.
fn end((host, pid): (&Host, i32), signal: Signal) -> Result<()> {
    if host.status(pid)? == Status::Running {
        // Between the look and the signal it can only end.
        let _ = host.signal(pid, signal);
        let end = host.end_of(pid, MOVE_LIMIT)?;
        ensure!(end != Status::Running, "it goes on after {signal}");
    }
    Ok(())
}

fn runs_on(host: &Host, pid: i32) -> bool {
    let stat = fs::read_to_string(host.path(&format!("/proc/{pid}/stat"))).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| state.starts_with(['R', 'S', 'D']))
}
