//! Servers that move with their address: their clients stay connected, and notice a short stall.

use anyhow::{Context, Result, ensure};
use tests::hosts::{Host, SERVICE, SERVICE_V4, SERVICE_V6, Started, TwoHosts};
use tests::redis::server;
use tests::redis::{CrowdReport, RunningCrowd};
use tests::say;
use tests::scale::{repetitions, scaled};
use tests::stalls::Stalls;

const CLIENTS: usize = 50;

/// For a machine on which the clients themselves wait for a processor. How long they waited is measured.
const PATIENCE_S: u64 = 5;

#[test]
fn redis_with_fifty_clients_of_which_none_notices() -> Result<()> {
    let stalls = Scene::set(&[SERVICE.v4])?.moves(repetitions())?;
    Ok(say::figure("redis with fifty clients", &stalls)?)
}

#[test]
fn redis_with_fifty_clients_of_which_half_speak_ipv6() -> Result<()> {
    let stalls = Scene::set(&[SERVICE.v4, SERVICE_IN_BRACKETS])?.moves(scaled(4, 1))?;
    Ok(say::figure("redis with fifty clients, half of them over IPv6", &stalls)?)
}

const SERVICE_IN_BRACKETS: &str = "[2001:db8::50]";

struct Scene {
    hosts: TwoHosts,
    clients: Host,
    redis: Started,
    crowds: Vec<RunningCrowd>,
}

impl Scene {
    /// The clients are spread over these addresses of the server.
    fn set(addresses: &[&str]) -> Result<Self> {
        let (hosts, clients) = TwoHosts::with_clients()?;
        let redis = server::start(&hosts, &hosts.a)?;
        let each = CLIENTS / addresses.len();
        let crowds = addresses.iter();
        let crowds = crowds.map(|at| RunningCrowd::start_patient(&clients, at, each, PATIENCE_S));
        let crowds: Vec<_> = crowds.collect::<Result<_>>()?;
        crowds.iter().try_for_each(RunningCrowd::goes_on)?;
        Ok(Self { hosts, clients, redis, crowds })
    }

    /// There and back, so often. Returns what was measured.
    fn moves(self, rounds: u32) -> Result<String> {
        let mut stalls = Stalls::default();
        for round in 1..=rounds {
            for (from, to) in [(&self.hosts.a, &self.hosts.b), (&self.hosts.b, &self.hosts.a)] {
                let longest = self.one_move(from, to);
                stalls.push(longest.with_context(|| format!("round {round} to {}", to.name()))?);
            }
        }
        let ends = self.crowds.iter().map(|crowd| crowd.stop(&self.clients));
        let ends: Vec<CrowdReport> = ends.collect::<Result<_>>()?;
        let writes: u64 = ends.iter().map(|report| report.acknowledged).sum();
        Ok(format!("{writes} writes, {stalls}"))
    }

    /// Returns the longest stall of any client, in milliseconds.
    fn one_move(&self, from: &Host, to: &Host) -> Result<f64> {
        let marks = self.crowds.iter().map(RunningCrowd::mark).collect::<Result<Vec<_>>>()?;
        let options = ["--address", SERVICE_V4, "--address", SERVICE_V6];
        let moved = self.hosts.migrate(self.redis.pid, from, to, &options)?;
        let story = moved.story();
        moved.success()?;
        self.crowds.iter().try_for_each(RunningCrowd::goes_on).context(story)?;
        for address in [SERVICE.v4, SERVICE.v6] {
            has_address(address, to, from)?;
        }
        let stalls =
            self.crowds.iter().zip(marks).map(|(crowd, mark)| crowd.longest_stall_ms(mark));
        Ok(stalls.collect::<Result<Vec<_>>>()?.into_iter().fold(0.0, f64::max))
    }
}

/// The address is on the one host and on no other.
fn has_address(address: &str, here: &Host, gone_from: &Host) -> Result<()> {
    let addresses = |host: &Host| host.run(&["ip", "-o", "addr", "show"])?.success();
    let written = format!(" {address}/");
    ensure!(addresses(here)?.contains(&written), "{} has no {address}", here.name());
    ensure!(!addresses(gone_from)?.contains(&written), "{} has {address} still", gone_from.name());
    Ok(())
}
