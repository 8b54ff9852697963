//! A server with a connection in every state that lasts moves there and back; then each goes on to its end,
//! and every byte is compared on both sides.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use tests::hosts::{Address, Host, SERVICE, SERVICE_V4, SERVICE_V6, Started, TwoHosts};
use tests::workload::SOURCES;
use tests::{place, wait};

#[test]
fn every_state_comes_along_over_ipv4() -> Result<()> {
    every_state("0.0.0.0", SERVICE.v4)
}

#[test]
fn every_state_comes_along_over_ipv6() -> Result<()> {
    every_state("::", SERVICE.v6)
}

#[test]
fn every_state_comes_along_when_ipv4_is_mapped_into_ipv6() -> Result<()> {
    every_state("::", SERVICE.v4)
}

const PORT: u16 = 7100;

/// Those of `tcp_states.py`, with the one that asks.
const CONNECTIONS: usize = 8;

/// `listen`: where the server does; `service`: how it is called.
fn every_state(listen: &str, service: &str) -> Result<()> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let flag = place::text(&hosts.shared().join("go-on"))?;
    let Address { v4, v6 } = clients.address();
    let own = if service.contains(':') { v6 } else { v4 };
    let server = play(&hosts.a, ["serve", listen, service, &flag])?;
    says(&server, "listening", 1)?;
    let client = play(&clients, ["call", service, own, &flag])?;
    says(&client, "set ", CONNECTIONS)?;
    says(&server, "set ", CONNECTIONS)?;
    let before = states(&hosts.a)?;
    let expected = [("01", 3), ("02", 1), ("04", 1), ("05", 1), ("08", 1), ("09", 1), ("0B", 1)];
    let expected: BTreeMap<String, usize> =
        expected.into_iter().map(|(state, count)| (state.to_owned(), count)).collect();
    ensure!(before == expected, "before the move there are {before:?}");
    for (from, to) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)] {
        let options = ["--address", SERVICE_V4, "--address", SERVICE_V6];
        let moved = hosts.migrate(server.pid, from, to, &options)?;
        let story = moved.story();
        moved.success()?;
        let after = states(to)?;
        ensure!(after == before, "on {} there are {after:?}: {story}", to.name());
    }
    fs::write(&flag, "")?;
    says(&client, "done ", CONNECTIONS).with_context(|| said(&server))?;
    says(&server, "done ", CONNECTIONS)?;
    hosts.a.signal(server.pid, Signal::SIGKILL)
}

fn play(host: &Host, [role, at, own, flag]: [&str; 4]) -> Result<Started> {
    let (program, port) = (format!("{SOURCES}/tcp_states.py"), PORT.to_string());
    host.spawn(&["/usr/bin/python3", &program, role, at, &port, own, flag])
}

fn said(program: &Started) -> String {
    let [out, err] = [&program.stdout, &program.stderr].map(fs::read_to_string);
    format!("{} {}", out.unwrap_or_default(), err.unwrap_or_default())
}

/// Waits until it has said so many lines that begin so.
fn says(program: &Started, beginning: &str, count: usize) -> Result<()> {
    wait::until(
        wait::PATIENCE,
        || format!("{count} lines of {beginning:?} among {}", said(program)),
        || {
            let said = said(program);
            ensure!(!said.contains("BAD") && !said.contains("Traceback"), "{said}");
            let lines = said.lines().filter(|line| line.starts_with(beginning)).count();
            Ok((lines >= count).then_some(()))
        },
    )
}

/// How many connections of the host are in each state, as `/proc/net/tcp` numbers them: proc(5).
fn states(host: &Host) -> Result<BTreeMap<String, usize>> {
    let tables = host.run(&["cat", "/proc/net/tcp", "/proc/net/tcp6"])?.success()?;
    let mut states = BTreeMap::new();
    for line in tables.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(state), Some(inode)) = (words.get(3), words.get(9)) else { continue };
        // Listeners, and what nobody holds any more.
        if state.len() == 2 && !["0A", "st"].contains(state) && *inode != "0" {
            *states.entry((*state).to_owned()).or_insert(0) += 1;
        }
    }
    Ok(states)
}
