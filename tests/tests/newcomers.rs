//! Who has asked to be let in when a server is to move: nobody is lost who is there, and nobody is waited
//! for who is not.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use tests::hosts::{Host, SERVICE, SERVICE_V4, Started, TwoHosts, ip};
use tests::moved::exit;
use tests::{place, say, wait};

const PORT: &str = "7200";

/// Accepts somebody when it is told to, and says what it hears.
const SERVER: &str = r#"
import os, socket, sys, time
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("listening", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.05)
print("heard", listener.accept()[0].recv(9), flush=True)
"#;

/// The same by Multipath TCP (262), with one whom it has accepted before.
const MULTIPATH_SERVER: &str = r#"
import os, socket, sys, time
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
listener.bind(("0.0.0.0", int(sys.argv[1])))
listener.listen()
print("listening", flush=True)
first = listener.accept()[0]
print("accepted", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.05)
print("first", first.recv(9), flush=True)
print("heard", listener.accept()[0].recv(9), flush=True)
"#;

const CLIENT: &str = r#"
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
connection.sendall(b"hello")
print("connected", flush=True)
try:
    print("the end" if connection.recv(1) == b"" else "a byte")
except ConnectionResetError:
    print("a reset")
"#;

/// Asks to be let in, as an address that nobody has: the answer is never answered.
const FORGER: &str = r#"
import socket, struct, sys
def sum16(data):
    words = struct.unpack("!%dH" % (len(data) // 2), data)
    total = sum(words)
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
sender, receiver = socket.inet_aton("192.0.2.77"), socket.inet_aton(sys.argv[1])
def segment(checksum):
    return struct.pack("!HHIIBBHHH", 4711, int(sys.argv[2]), 1, 0, 5 << 4, 2, 65535, checksum, 0)
checksum = sum16(sender + receiver + struct.pack("!BBH", 0, 6, 20) + segment(0))
header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 6, 0, sender, receiver)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
    raw.sendto(header + segment(checksum), (sys.argv[1], 0))
"#;

const PYTHON: &str = "/usr/bin/python3";

struct Scene {
    hosts: TwoHosts,
    clients: Host,
    server: Started,
    flag: String,
}

impl Scene {
    fn new() -> Result<Self> {
        Self::of(SERVER)
    }

    fn of(server: &str) -> Result<Self> {
        let (hosts, clients) = TwoHosts::with_clients()?;
        let flag = place::text(&hosts.shared().join("accept"))?;
        let server = hosts.a.spawn(&[PYTHON, "-c", server, PORT, &flag])?;
        says(&server, "listening")?;
        Ok(Self { hosts, clients, server, flag })
    }

    fn client(&self) -> Result<Started> {
        let client = self.clients.spawn(&[PYTHON, "-c", CLIENT, SERVICE.v4, PORT])?;
        says(&client, "connected")?;
        Ok(client)
    }

    /// The server takes one in, and hears him.
    fn serves(&self, host: &Host) -> Result<()> {
        fs::write(&self.flag, "")?;
        says(&self.server, "heard b'hello'")?;
        host.end_of(self.server.pid, wait::PATIENCE).map(drop)
    }
}

fn says(program: &Started, wanted: &str) -> Result<()> {
    let said = || fs::read_to_string(&program.stdout);
    let is_said = || Ok(said()?.contains(wanted).then_some(()));
    wait::until(wait::PATIENCE, || format!("{wanted:?} of {}", program.story()), is_said)
}

/// Lines of `/proc/net/tcp` in SYN_RECV.
fn half_open(host: &Host) -> Result<usize> {
    let table = host.run(&["cat", "/proc/net/tcp"])?.success()?;
    Ok(table.lines().filter(|line| line.split_whitespace().nth(3) == Some("03")).count())
}

#[test]
fn who_has_asked_and_is_not_there_holds_nobody_up() -> Result<()> {
    let scene = Scene::new()?;
    let hosts = &scene.hosts;
    // Where nobody is: without this the host would find out that there is nobody.
    ip(&hosts.a, "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 nud permanent dev eth0")?;
    scene.clients.run(&[PYTHON, "-c", FORGER, SERVICE.v4, PORT])?.success()?;
    let is_asked = || Ok((half_open(&hosts.a)? > 0).then_some(()));
    wait::until(wait::PATIENCE, || "the server to be asked".into(), is_asked)?;
    let options = ["--address", SERVICE_V4];
    let moved = hosts.migrate(scene.server.pid, &hosts.a, &hosts.b, &options)?;
    let said = "1 are about to be connected there, and are not waited for";
    ensure!(moved.story().contains(said), "{}", moved.story());
    moved.success()?;
    let client = scene.client()?;
    scene.serves(&hosts.b)?;
    scene.clients.finish(&client, wait::PATIENCE)?.success().map(drop)
}

#[test]
fn who_is_never_accepted_is_not_lost_and_the_failure_says_where_he_waits() -> Result<()> {
    let scene = Scene::new()?;
    let hosts = &scene.hosts;
    let client = scene.client()?;
    let options = ["--address", SERVICE_V4];
    let moved = hosts.migrate(scene.server.pid, &hosts.a, &hosts.b, &options)?;
    ensure!(moved.exit == exit::FAILED, "{}", moved.story());
    let names = ["listening TCP socket", "1 wait there", "does not accept", "runs_on source"];
    moved.expect_names(&names)?;
    scene.serves(&hosts.a)?;
    let said = scene.clients.finish(&client, wait::PATIENCE)?.success()?;
    ensure!(said.ends_with("the end\n"), "{said}");
    Ok(())
}

#[test]
fn who_is_never_accepted_is_given_up_where_connections_are() -> Result<()> {
    let scene = Scene::new()?;
    let hosts = &scene.hosts;
    let client = scene.client()?;
    let options = ["--tcp", "close", "--address", SERVICE_V4];
    let moved = hosts.migrate(scene.server.pid, &hosts.a, &hosts.b, &options)?;
    moved.success().context("it was said that they are reset")?;
    scene.clients.signal(client.pid, Signal::SIGKILL)?;
    let client = scene.client()?;
    scene.serves(&hosts.b)?;
    scene.clients.finish(&client, wait::PATIENCE)?.success().map(drop)
}

#[test]
fn who_comes_to_a_server_of_multipath_tcp_is_served_before_and_after() -> Result<()> {
    if fs::read_to_string("/proc/sys/net/mptcp/enabled").unwrap_or_default() != "1\n" {
        return Ok(say::skip("a server of Multipath TCP", "the kernel has none")?);
    }
    let scene = Scene::of(MULTIPATH_SERVER)?;
    let hosts = &scene.hosts;
    let first = scene.client()?;
    says(&scene.server, "accepted")?;
    for (from, to) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a), (&hosts.a, &hosts.b)] {
        hosts.migrate(scene.server.pid, from, to, &["--address", SERVICE_V4])?.success()?;
    }
    let second = scene.client()?;
    scene.serves(&hosts.b)?;
    says(&scene.server, "first b'hello'")?;
    for client in [first, second] {
        let said = scene.clients.finish(&client, wait::PATIENCE)?.success()?;
        ensure!(said.ends_with("the end\n"), "{said}");
    }
    Ok(())
}
