//! Two hosts on one machine: `hosta` and `hostb`, each with its own network, processes, mounts,
//! name and IPC, joined by a veth pair. No bridge, no names in the machine's own network: any
//! number of pairs can exist at once.

mod agents;
mod clients;
pub mod far;
mod host;
mod images;
mod linked;
mod namespaces;

pub use agents::{
    CONFIG, SOCKET, SOURCE_STATE, listed, start_agent, start_agent_with, start_source_agent,
};
pub use clients::{SERVICE, SERVICE_V4, SERVICE_V6};
pub use host::{Address, Host, Output, Started};
pub use namespaces::{BRIDGE, CABLE, ip, is_up, namespace};

use crate::host_init::Setup;
use crate::{place, workload};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

pub const ADDRESS_A: Address = Address { v4: "192.0.2.1", v6: "2001:db8::1" };
pub const ADDRESS_B: Address = Address { v4: "192.0.2.2", v6: "2001:db8::2" };

/// An address of `hosta` of which `hosta` believes that it is `hostb`: where a relay listens.
pub const RELAY_ADDRESS: &str = "192.0.2.9";

/// Ends with everything in it when it is dropped, and when the process that made it dies.
#[derive(Debug)]
pub struct TwoHosts {
    pub a: Host,
    pub b: Host,
    shared: PathBuf,
    /// The destination agents on `a` and on `b`, when they run.
    agents: Vec<Started>,
    /// Removed by the hosts themselves when the test is killed, by this in the ordinary case.
    _directory: TempDir,
}

impl TwoHosts {
    pub fn new() -> Result<Self> {
        let hosts = Self::apart()?;
        join(&hosts.a, &hosts.b)?;
        Ok(hosts)
    }

    /// The two, and the host on which their clients run. [`SERVICE`] is an address of `a`.
    pub fn with_clients() -> Result<(Self, Host)> {
        let (mut hosts, clients) = Self::around_clients()?;
        hosts.start_agents()?;
        Ok((hosts, clients))
    }

    /// The same, without agents.
    pub fn around_clients() -> Result<(Self, Host)> {
        let hosts = Self::apart()?;
        let clients = clients::host(hosts.shared())?;
        clients::join(&hosts, &clients)?;
        Ok((hosts, clients))
    }

    fn apart() -> Result<Self> {
        let directory = TempDir::with_prefix_in("pair-", place::made("two-hosts")?)?;
        let shared = directory.path().to_path_buf();
        write_names(&shared)?;
        let a = Host::new(ADDRESS_A, setup("hosta", 1000, &shared)?)?;
        let b = Host::new(ADDRESS_B, setup("hostb", 20_000, &shared)?)?;
        Ok(Self { a, b, shared, agents: Vec::new(), _directory: directory })
    }

    /// A directory that is the same on both hosts, at the same path. For files that "exist on both".
    pub fn shared(&self) -> &Path {
        &self.shared
    }
}

fn setup(hostname: &str, first_pid: u32, shared: &Path) -> Result<Setup> {
    // Of a checkout in /tmp the hosts see nothing else.
    let sources = PathBuf::from(workload::SOURCES);
    let (workloads, others) = (place::made("workloads")?, place::made("others")?);
    let kept = [place::programs()?, workloads, others, shared.to_path_buf(), sources];
    Ok(Setup {
        hostname: hostname.into(),
        first_pid,
        shared: place::text(shared)?,
        kept: kept.iter().map(|path| place::text(path)).collect::<Result<_>>()?,
    })
}

/// So that `--to hostb` works as it does between real hosts.
fn write_names(shared: &Path) -> Result<()> {
    let names = format!(
        "127.0.0.1 localhost\n{} hosta\n{} hostb\n{RELAY_ADDRESS} relay\n",
        ADDRESS_A.v4, ADDRESS_B.v4
    );
    fs::write(shared.join("etc-hosts"), names).context("write the hosts' /etc/hosts")
}

/// The pair is made inside both namespaces at once; made outside and moved in, a killed test would
/// leave it behind.
fn join(a: &Host, b: &Host) -> Result<()> {
    configure(a, &format!("link add eth0 type veth peer name eth0 netns {}\n", b.init_pid()))?;
    configure(a, &format!("{}addr add {RELAY_ADDRESS}/32 dev lo\n", bring_up(ADDRESS_A)))?;
    configure(b, &bring_up(ADDRESS_B))
}

/// Without `nodad` an IPv6 address stays unusable for two seconds.
fn bring_up(address: Address) -> String {
    format!(
        "link set lo up\nlink set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n",
        address.v4, address.v6
    )
}

/// Runs a batch of `ip` commands in the host's network, but with the PIDs of this process.
fn configure(host: &Host, commands: &str) -> Result<()> {
    let mut ip = Command::new("nsenter")
        .args(["--target", &host.init_pid().to_string(), "--net", "ip", "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("run nsenter and ip (packages util-linux, iproute2)")?;
    let mut batch = ip.stdin.take().context("the standard input of ip")?;
    batch.write_all(commands.as_bytes())?;
    drop(batch);
    ensure!(ip.wait()?.success(), "ip failed on {} with {commands:?}", host.name());
    Ok(())
}
