//! Hosts with a bridge each, and programs on them in a network namespace of their own.

use super::host::Address;
use super::{ADDRESS_A, ADDRESS_B, Host, SERVICE, TwoHosts, configure};
use crate::wait;
use anyhow::{Result, ensure};

/// The same on both hosts, so that a namespace finds it without a word.
pub const BRIDGE: &str = "br0";
/// What a host calls its end of the cable into a namespace.
pub const CABLE: &str = "tree0";
const NAME: &str = "tree";

impl TwoHosts {
    /// The two and a host for clients; whatever is plugged into [`BRIDGE`] on either is reached from
    /// all of them.
    pub fn with_bridges() -> Result<(Self, Host)> {
        let (mut hosts, clients) = Self::around_bridges()?;
        hosts.start_agents()?;
        Ok((hosts, clients))
    }

    /// The same, without agents.
    pub fn around_bridges() -> Result<(Self, Host)> {
        let (hosts, clients) = Self::around_clients()?;
        bridge(&hosts.a, ADDRESS_A)?;
        bridge(&hosts.b, ADDRESS_B)?;
        Ok((hosts, clients))
    }
}

/// The host's own addresses go from its device to the bridge.
fn bridge(host: &Host, Address { v4, v6 }: Address) -> Result<()> {
    let bridge = format!("link add {BRIDGE} type bridge forward_delay 0 stp_state 0\n");
    let port = format!("addr flush dev eth0\nlink set eth0 master {BRIDGE} up\n");
    let up = format!("link set {BRIDGE} up\naddr add {v4}/24 dev {BRIDGE}\n");
    let up = format!("{up}addr add {v6}/64 dev {BRIDGE} nodad\n");
    configure(host, &[bridge, port, up].concat())
}

/// Makes a network namespace on a host with the address [`SERVICE`] in it, plugged into [`BRIDGE`].
/// What runs in it is started with what is returned before its own arguments.
pub fn namespace(host: &Host) -> Result<[&'static str; 2]> {
    let Address { v4, v6 } = SERVICE;
    for command in [
        format!("netns add {NAME}"),
        format!("link add {CABLE} type veth peer name eth0 netns {NAME}"),
        format!("link set {CABLE} master {BRIDGE} up"),
        format!("-n {NAME} link set lo up"),
        format!("-n {NAME} link set eth0 up"),
        format!("-n {NAME} addr add {v4}/24 dev eth0"),
        format!("-n {NAME} addr add {v6}/64 dev eth0 nodad"),
        format!("-n {NAME} route add default via {}", ADDRESS_A.v4),
    ] {
        ip(host, &command)?;
    }
    carries(host)?;
    Ok(["nsenter", "--net=/run/netns/tree"])
}

/// The kernel lets frames through aside, and not before it comes to that: on a busy machine seconds
/// later.
fn carries(host: &Host) -> Result<()> {
    let ends = [format!("-o link show {CABLE}"), format!("-n {NAME} -o link show eth0")];
    let is_open = |end: &String| ip(host, end).map(|said| said.contains(" state UP "));
    let both_are = || Ok((is_open(&ends[0])? && is_open(&ends[1])?).then_some(()));
    wait::until(wait::PATIENCE, || format!("the cable {CABLE} to carry"), both_are)
}

pub fn ip(host: &Host, command: &str) -> Result<String> {
    let argv: Vec<&str> = ["ip"].into_iter().chain(command.split_whitespace()).collect();
    host.run(&argv)?.success()
}

/// Whether a device of the host is up.
pub fn is_up(host: &Host, device: &str) -> Result<bool> {
    let said = ip(host, &format!("-o link show {device}"))?;
    ensure!(said.contains(device), "{said}");
    Ok(said.contains(",UP") || said.contains("<UP"))
}
