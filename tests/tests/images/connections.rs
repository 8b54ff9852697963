//! TCP connections of a tree that lay in a directory.

use super::directory;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use tests::host_init::Status;
use tests::hosts::{SERVICE, Started, TwoHosts};
use tests::moved::exit;
use tests::wait;
use tests::workload::Workload;

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
    let python = ["/usr/bin/python3", "-c"];
    let server = hosts.a.spawn(&[&python[..], &[ECHO, SERVICE.v4]].concat())?;
    says(&server, "listening\n")?;
    let flag = directory(&hosts, "go-on")?;
    let client = clients.spawn(&[&python[..], &[CALLER, SERVICE.v4, &flag]].concat())?;
    says(&client, "before\n")?;
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

fn says(program: &Started, words: &str) -> Result<()> {
    wait::until(
        wait::PATIENCE,
        || format!("{words:?} of {}", program.story()),
        || Ok((fs::read_to_string(&program.stdout)? == words).then_some(())),
    )
}

#[test]
fn connections_can_be_left_behind_when_it_is_restored() -> Result<()> {
    let (hosts, clients) = TwoHosts::with_clients()?;
    let server = Workload::start(&hosts.a, "cut_off", &[])?;
    let call = "import socket, sys; socket.create_connection((sys.argv[1], 7000)).recv(1)";
    let client = clients.spawn(&["/usr/bin/python3", "-c", call, SERVICE.v4])?;
    server.proves_itself(&hosts.a)?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(server.pid, &directory, &[])?.success()?;
    hosts.a.end_of(server.pid, wait::PATIENCE)?;
    hosts.b.restore(&directory, &["--tcp", "close"])?.success()?;
    server.proves_itself(&hosts.b)?;
    server.stop(&hosts.b)?;
    clients.signal(client.pid, Signal::SIGKILL)
}
