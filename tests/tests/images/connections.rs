//! TCP connections of a tree that lay in a directory.

use super::directory;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use tests::host_init::Status;
use tests::hosts::{Host, SERVICE, Started, TwoHosts};
use tests::moved::exit;
use tests::workload::Workload;
use tests::{place, wait};

/// Answers every line with itself.
const ECHO: &str = r#"
import socket, sys
listener = socket.create_server((sys.argv[1], 7001))
print("listening", flush=True)
connection, _ = listener.accept()
for line in connection.makefile("rb", buffering=0):
    connection.sendall(line)
"#;

/// Speaks, waits for the file, and speaks again.
const CALLER: &str = r#"
import os, socket, sys, time
connection = socket.create_connection((sys.argv[1], 7001))
connection.settimeout(60)
answers = connection.makefile("rb", buffering=0)
for word in b"before\n", b"after\n":
    connection.sendall(word)
    print(answers.readline().decode(), end="", flush=True)
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
"#;

#[test]
fn a_connection_goes_on_where_its_address_is() -> Result<()> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let flag = directory(&hosts, "go-on")?;
    let (server, client) = in_conversation(&hosts, &clients, &flag)?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(server.pid, &directory, &[])?.success()?;
    hosts.a.end_of(server.pid, wait::PATIENCE)?;
    // Elsewhere nobody could hear it.
    let refused = hosts.b.restore(&directory, &[])?;
    ensure!(refused.status == Status::Exited(exit::REFUSED), "{refused:?}");
    hosts.a.restore(&directory, &[])?.success()?;
    fs::write(&flag, "")?;
    says(&client, "before\nafter\n")
}

/// A server, and a client that goes on when there is a file with the name `flag`.
fn in_conversation(hosts: &TwoHosts, clients: &Host, flag: &str) -> Result<(Started, Started)> {
    let python = ["/usr/bin/python3", "-c"];
    let server = hosts.a.spawn(&[&python[..], &[ECHO, SERVICE.v4]].concat())?;
    says(&server, "listening\n")?;
    let client = clients.spawn(&[&python[..], &[CALLER, SERVICE.v4, flag]].concat())?;
    says(&client, "before\n")?;
    Ok((server, client))
}

fn says(program: &Started, words: &str) -> Result<()> {
    wait::until(
        wait::PATIENCE,
        || format!("{words:?} of {}", program.story()),
        || Ok((fs::read_to_string(&program.stdout)? == words).then_some(())),
    )
}

#[test]
fn connections_can_be_left_behind_when_it_is_restored() -> Result<()> {
    left_behind("close").map(drop)
}

#[test]
fn a_peer_that_cannot_be_reached_is_named_and_in_nobodys_way() -> Result<()> {
    let said = left_behind("reset")?;
    let named =
        said.contains("TCP connection from") && said.contains("Cannot assign requested address");
    ensure!(named, "{said}");
    Ok(())
}

/// On a host that has not their address.
fn left_behind(tcp: &str) -> Result<String> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let server = Workload::start(&hosts.a, "cut_off", &[])?;
    let call = "import socket, sys; socket.create_connection((sys.argv[1], 7000)).recv(1)";
    let client = clients.spawn(&["/usr/bin/python3", "-c", call, SERVICE.v4])?;
    server.proves_itself(&hosts.a)?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(server.pid, &directory, &[])?.success()?;
    hosts.a.end_of(server.pid, wait::PATIENCE)?;
    let said = hosts.b.restore(&directory, &["--tcp", tcp])?.success()?;
    server.proves_itself(&hosts.b)?;
    server.stop(&hosts.b)?;
    clients.signal(client.pid, Signal::SIGKILL)?;
    Ok(said)
}

/// Says how its connection has ended; with an address it calls, without one it is called.
const HEARS: &str = r#"
import socket, sys, time
if len(sys.argv) > 1:
    connection = socket.create_connection((sys.argv[1], 7002))
else:
    listener = socket.create_server(("", 7002))
    print("listening", flush=True)
    connection, _ = listener.accept()
print("connected", flush=True)
try:
    connection.recv(1)
    print("the end", flush=True)
except ConnectionResetError:
    print("reset", flush=True)
time.sleep(600)
"#;

#[test]
fn both_ends_of_a_connection_find_it_reset() -> Result<()> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let python = ["/usr/bin/python3", "-c", HEARS];
    let server = hosts.a.spawn(&python)?;
    says(&server, "listening\n")?;
    let client = clients.spawn(&[&python[..], &[SERVICE.v4]].concat())?;
    says(&client, "connected\n")?;
    says(&server, "listening\nconnected\n")?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(server.pid, &directory, &[])?.success()?;
    hosts.a.end_of(server.pid, wait::PATIENCE)?;
    // It has nothing to say, and so it has heard nothing.
    says(&client, "connected\n")?;
    hosts.a.restore(&directory, &["--tcp", "reset"])?.success()?;
    says(&client, "connected\nreset\n")?;
    says(&server, "listening\nconnected\nreset\n")?;
    hosts.a.signal(server.pid, Signal::SIGKILL)?;
    clients.signal(client.pid, Signal::SIGKILL)
}

/// The tree stands still by then, and its image is whole; what it has is stored by the next dump as well.
#[test]
fn a_dump_that_is_killed_in_its_last_step_costs_no_connection() -> Result<()> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let flag = directory(&hosts, "go-on")?;
    let (server, client) = in_conversation(&hosts, &clients, &flag)?;
    let (first, second) = (directory(&hosts, "first")?, directory(&hosts, "second")?);
    let (migrate, pid) = (place::program("migrate")?, server.pid.to_string());
    let killed =
        ["MIGRATE_FAIL=dump.finish.after=kill", &migrate, "dump", "-D", &first, "-t", &pid];
    let killed = hosts.a.run(&[&["/usr/bin/env"], &killed[..]].concat())?;
    ensure!(killed.status != Status::Exited(0), "{killed:?}");
    hosts.a.image_command(&["image", "verify", &first])?.success()?;
    let refused = hosts.a.restore(&first, &[])?;
    ensure!(refused.status == Status::Exited(exit::REFUSED), "{refused:?}");
    ensure!(
        refused.stdout.contains("is the original of this image and stands still"),
        "{refused:?}"
    );
    hosts.a.dump(server.pid, &second, &[])?.success()?;
    hosts.a.end_of(server.pid, wait::PATIENCE)?;
    hosts.a.restore(&first, &[])?.success()?;
    fs::write(&flag, "")?;
    says(&client, "before\nafter\n")
}
