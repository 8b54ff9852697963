//! Connections that stay behind: what the program sees of it, and what its peer sees.

use anyhow::{Result, ensure};
use std::fs;
use tests::hosts::{SERVICE, TwoHosts};
use tests::wait;
use tests::workload::Workload;

/// Says how its connection ends.
const CLIENT: &str = r#"
import socket, sys
connection = socket.create_connection((sys.argv[1], 7000))
connection.settimeout(15)
print("connected", flush=True)
try:
    print("the end" if connection.recv(1) == b"" else "a byte")
except ConnectionResetError:
    print("a reset")
except TimeoutError:
    print("nothing")
"#;

/// What the client has seen when the server has moved and its program has seen a reset.
fn seen_by_the_client(rule: &str) -> Result<String> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let server = Workload::start(&hosts.a, "cut_off", &[])?;
    let client = clients.spawn(&["/usr/bin/python3", "-c", CLIENT, SERVICE.v4])?;
    let is_connected = || Ok((fs::read_to_string(&client.stdout)? == "connected\n").then_some(()));
    wait::until(wait::PATIENCE, || "the client to connect".into(), is_connected)?;
    server.proves_itself(&hosts.a)?;
    hosts.migrate(server.pid, &hosts.a, &hosts.b, &["--tcp", rule])?.success()?;
    server.proves_itself(&hosts.b)?;
    server.stop(&hosts.b)?;
    let said = clients.finish(&client, wait::PATIENCE)?.success()?;
    Ok(said.trim_start_matches("connected\n").to_owned())
}

#[test]
fn by_reset_the_program_and_its_peer_find_it_reset() -> Result<()> {
    let seen = seen_by_the_client("reset")?;
    ensure!(seen == "a reset\n", "the client has seen {seen}");
    Ok(())
}

#[test]
fn by_close_the_program_finds_it_reset_and_its_peer_at_its_end() -> Result<()> {
    let seen = seen_by_the_client("close")?;
    ensure!(seen == "the end\n", "the client has seen {seen}");
    Ok(())
}
