//! One fault at one moment of the move of a server: its clients stay connected through all of it, and
//! its address is on the host on which it runs, and on no other. So is the cable into its namespace, if it
//! has one of its own; and no rule of a packet filter is left on either.

use super::cell::{Cell, Subject};
use super::ground::Ground;
use crate::hosts::{CABLE, Host, SERVICE, SERVICE_V4, Started, TwoHosts, ip, is_up, namespace};
use crate::redis::{RunningCrowd, server};
use crate::wait;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

/// Few: what one of them notices, all do.
const CLIENTS: usize = 4;

/// With every time-out that a lost peer can cost: as long as a client waits, TCP does.
const CLIENTS_PATIENCE_S: u64 = 300;

/// The tables of nf_tables, by their names: NFT_MSG_GETTABLE of linux/netfilter/nf_tables.h.
const TABLES: &str = r#"
import socket, struct
DUMP, DONE, GET_TABLE = 0x301, 3, 10 << 8 | 1
link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
link.sendto(struct.pack("=IHHII4x", 20, GET_TABLE, DUMP, 1, 0), (0, 0))
kind = 0
while kind != DONE:
    answers = link.recv(65536)
    while answers and kind != DONE:
        length, kind = struct.unpack_from("=IH", answers)
        if kind != DONE:
            print(answers[24:length].split(b"\0")[0])
        answers = answers[(length + 3) & ~3:]
"#;

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
        let (hosts, clients) = match cell.subject {
            Subject::Namespace => TwoHosts::around_bridges()?,
            _ => TwoHosts::around_clients()?,
        };
        let ground = Ground::prepare(cell, hosts)?;
        let hosts = &ground.hosts;
        let server = match cell.subject {
            Subject::Namespace => server::start_within(hosts, &hosts.a, &namespace(&hosts.a)?)?,
            _ => server::start(hosts, &hosts.a)?,
        };
        let crowd = RunningCrowd::start_patient(&clients, SERVICE.v4, CLIENTS, CLIENTS_PATIENCE_S)?;
        crowd.goes_on()?;
        Ok(Self { ground, clients, server, crowd })
    }

    fn play(mut self) -> Result<()> {
        let pid = self.server.pid;
        let options: &[&str] = match self.ground.cell.subject {
            Subject::Namespace => &[],
            _ => &["--address", SERVICE_V4],
        };
        let command = self.ground.start_move(pid, options)?;
        self.ground.strike(&command)?;
        self.ground.end_of(&command)?;
        self.ground.settle(pid, |host| {
            let story = || format!("{}{}", command.story(), self.ground.agent.story());
            self.crowd.goes_on().with_context(story)?;
            self.crowd.stop(&self.clients)?;
            self.is_reached_there_alone(host)?;
            self.leaves_no_rule()?;
            host.signal(pid, Signal::SIGKILL)
        })
    }

    fn is_reached_there_alone(&self, host: &Host) -> Result<()> {
        for other in [&self.ground.hosts.a, &self.ground.hosts.b] {
            let is_there = match self.ground.cell.subject {
                Subject::Namespace => has_cable(other)?,
                _ => ip(other, "-o addr show")?.contains(&format!(" {}/", SERVICE.v4)),
            };
            let should = other.name() == host.name();
            ensure!(is_there == should, "{} and {}: {is_there}", other.name(), SERVICE.v4);
        }
        Ok(())
    }

    /// An agent ends its lock aside.
    fn leaves_no_rule(&self) -> Result<()> {
        for host in [&self.ground.hosts.a, &self.ground.hosts.b] {
            let tables = || host.run(&["/usr/bin/python3", "-c", TABLES])?.success();
            let left = || format!("no table to be left on {}: {:?}", host.name(), tables());
            wait::until(wait::PATIENCE, left, || Ok(tables()?.is_empty().then_some(())))?;
        }
        Ok(())
    }
}

/// One that is up: of none that is left on a host it was moved away from, not even the device is.
fn has_cable(host: &Host) -> Result<bool> {
    let is_there = ip(host, "-o link show type veth")?.contains(&format!(" {CABLE}@"));
    ensure!(!is_there || is_up(host, CABLE)?, "{} has a cable that is cut", host.name());
    Ok(is_there)
}
