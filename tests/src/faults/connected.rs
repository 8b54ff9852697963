//! One fault at one moment of the move of a server: its clients stay connected through all of it, and
//! its address is on the host on which it runs, and on no other.

use super::Reach;
use super::cell::Cell;
use super::ground::Ground;
use crate::hosts::{Host, SERVICE, SERVICE_V4, Started, TwoHosts};
use crate::redis::{RunningCrowd, server};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

/// Few: what one of them notices, all do.
const CLIENTS: usize = 4;

/// With every time-out that a lost peer can cost: as long as a client waits, TCP does.
const CLIENTS_PATIENCE_S: u64 = 300;

struct Scene {
    ground: Ground,
    clients: Host,
    server: Started,
    crowd: RunningCrowd,
}

pub(super) fn play(cell: Cell) -> Result<()> {
    Scene::set(cell)?.play()
}

impl Scene {
    fn set(cell: Cell) -> Result<Self> {
        let (hosts, clients) = TwoHosts::around_clients()?;
        let ground = Ground::prepare(cell, hosts)?;
        let server = server::start(&ground.hosts, &ground.hosts.a)?;
        let crowd = RunningCrowd::start_patient(&clients, SERVICE.v4, CLIENTS, CLIENTS_PATIENCE_S)?;
        crowd.goes_on()?;
        Ok(Self { ground, clients, server, crowd })
    }

    fn play(mut self) -> Result<()> {
        let pid = self.server.pid;
        let command = self.ground.start_move(pid, "hostb", &["--address", SERVICE_V4])?;
        self.ground.strike(&command, || Ok(()))?;
        self.ground.end_of(&command)?;
        let host = self.ground.settle(pid, 0, |host| {
            let story = || format!("{}{}", command.story(), self.ground.agent.story());
            self.crowd.goes_on().with_context(story)?;
            self.crowd.stop(&self.clients)?;
            self.has_the_address(host)?;
            host.signal(pid, Signal::SIGKILL)
        })?;
        let reach = self.ground.cell.step.reach;
        ensure!(reach != Reach::Copying || host.name() == "hosta", "it was moved");
        ensure!(reach != Reach::Lazy || host.name() == "hostb", "it runs at the source");
        Ok(())
    }

    fn has_the_address(&self, host: &Host) -> Result<()> {
        let written = format!(" {}/", SERVICE.v4);
        for other in [&self.ground.hosts.a, &self.ground.hosts.b] {
            let addresses = other.run(&["ip", "-o", "addr", "show"])?.success()?;
            let is_there = addresses.contains(&written);
            let should = other.name() == host.name();
            ensure!(is_there == should, "{} and {}: {is_there}", other.name(), SERVICE.v4);
        }
        Ok(())
    }
}
