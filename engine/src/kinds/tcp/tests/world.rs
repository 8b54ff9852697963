//! A client and two hosts, each in a network namespace of its own, and one address that is on
//! either host.

use super::super::diagnosis;
use super::super::info::State;
use super::WAIT_MAX;
use crate::kinds::address::{self, Address};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The address that moves, and the client's.
pub(super) const HOST_V4: &str = "192.0.2.10";
pub(super) const HOST_V6: &str = "2001:db8::10";
pub(super) const CLIENT_V4: &str = "198.51.100.1";
pub(super) const CLIENT_V6: &str = "2001:db8:1::1";

/// A network namespace, for as long as this is kept or something in it is open.
#[derive(Debug)]
pub(super) struct Net(File);

impl Net {
    fn new() -> nix::Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(Self(File::open("/proc/thread-self/ns/net").unwrap()))
        });
        made.join().unwrap()
    }

    /// Lets a thread do something there.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(there).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    pub(super) fn ip(&self, commands: &str) {
        let output = self.run(|| {
            let mut ip = Command::new("ip");
            ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut ip = ip.spawn().unwrap();
            ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
            ip.wait_with_output().unwrap()
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}: {said}");
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) client: Net,
    pub(super) source: Net,
    pub(super) destination: Net,
}

/// Neighbours are told each other's hardware addresses: who announces what is not the matter here.
const HOST_HARDWARE: &str = "02:00:00:00:00:0a";
const CLIENT_HARDWARE: &str = "02:00:00:00:00:0c";

impl World {
    /// `None` where no namespaces can be made, which is said as a skip.
    pub(super) fn new() -> Option<Self> {
        if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
            crate::skipped::skip("the program `ip` is not installed (package iproute2)");
            return None;
        }
        let (Ok(client), Ok(source), Ok(destination)) = (Net::new(), Net::new(), Net::new()) else {
            crate::skipped::skip("no network namespace can be made");
            return None;
        };
        let world = Self { client, source, destination };
        world.join(&world.source, "tosource");
        world.join(&world.destination, "todest");
        world.client.ip(&format!(
            "link set lo up\naddr add {CLIENT_V4}/32 dev lo\naddr add {CLIENT_V6}/128 dev lo nodad\n"
        ));
        for host in [&world.source, &world.destination] {
            // When the last IPv4 address of a device goes, all of its routes go.
            host.ip(&format!(
                "addr add 198.51.100.77/32 dev eth0\nroute add {CLIENT_V4}/32 dev eth0\nroute add {CLIENT_V6}/128 dev eth0\n\
                 neigh add {CLIENT_V4} lladdr {CLIENT_HARDWARE} dev eth0 nud permanent\n\
                 neigh add {CLIENT_V6} lladdr {CLIENT_HARDWARE} dev eth0 nud permanent\n"
            ));
        }
        world.address_at_source();
        Some(world)
    }

    fn join(&self, host: &Net, device: &str) {
        self.client.ip(&format!(
            "link add {device} address {CLIENT_HARDWARE} type veth peer name eth0 address \
             {HOST_HARDWARE} netns {}\nlink set {device} up\n\
             neigh add {HOST_V4} lladdr {HOST_HARDWARE} dev {device} nud permanent\n\
             neigh add {HOST_V6} lladdr {HOST_HARDWARE} dev {device} nud permanent\n",
            host.path()
        ));
        host.ip("link set lo up\nlink set eth0 up\n");
    }

    fn route(&self, device: &str) {
        self.client.ip(&format!(
            "route replace {HOST_V4}/32 dev {device} src {CLIENT_V4}\n\
             route replace {HOST_V6}/128 dev {device} src {CLIENT_V6}\n"
        ));
    }

    fn address_at_source(&self) {
        self.source.ip(&has("add", " nodad"));
        self.route("tosource");
    }

    /// For the next move. What the last one's connection has to say yet would be heard in it.
    pub(super) fn address_returns(&self) {
        let deadline = Instant::now() + WAIT_MAX;
        while self.destination.run(has_connections) {
            assert!(Instant::now() < deadline, "a connection does not end");
            thread::sleep(Duration::from_millis(5));
        }
        self.destination.ip(&has("del", ""));
        self.address_at_source();
    }

    pub(super) fn address_leaves(&self) {
        self.source.ip(&has("del", ""));
    }

    pub(super) fn address_arrives(&self) {
        self.destination.ip(&has("add", " nodad"));
        self.route("todest");
    }
}

/// Whether any may still say something; one that waits for its end to be forgotten says nothing.
fn has_connections() -> bool {
    use State::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynSent};
    let speaking = [Established, SynSent, FinWait1, FinWait2, CloseWait, LastAck, Closing];
    let states = speaking.into_iter().fold(0, |states, state| states | state.bit());
    let any = [address::v4([0; 4].into(), 0), address::v6([0; 16].into(), 0)];
    any.iter().any(|any| !diagnosis::list(Address(any), states).unwrap().is_empty())
}

fn has(verb: &str, at_once: &str) -> String {
    format!("addr {verb} {HOST_V4}/32 dev eth0\naddr {verb} {HOST_V6}/128 dev eth0{at_once}\n")
}

pub(super) fn coming() -> Vec<IpAddr> {
    [HOST_V4, HOST_V6].map(|text| text.parse().unwrap()).to_vec()
}
