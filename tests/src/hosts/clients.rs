//! A third host between the two, on which the clients of a server run: the three share one network,
//! so an address can move from one host to another and be found there.

use super::{ADDRESS_A, ADDRESS_B, Host, RELAY_ADDRESS, TwoHosts, bring_up, configure, setup};
use crate::hosts::host::Address;
use anyhow::Result;

const ADDRESS_CLIENTS: Address = Address { v4: "192.0.2.3", v6: "2001:db8::3" };

/// What servers are known by: it moves with them.
pub const SERVICE: Address = Address { v4: "192.0.2.50", v6: "2001:db8::50" };

/// As `--address` takes them.
pub const SERVICE_V4: &str = "192.0.2.50/24@eth0";
pub const SERVICE_V6: &str = "2001:db8::50/64@eth0";

/// The host of the clients is a bridge as well: `eth0` of the two others are its ports.
pub(super) fn host(shared: &std::path::Path) -> Result<Host> {
    Host::new(ADDRESS_CLIENTS, setup("clients", 30_000, shared)?)
}

pub(super) fn join(hosts: &TwoHosts, clients: &Host) -> Result<()> {
    let Address { v4, v6 } = ADDRESS_CLIENTS;
    for (host, port) in [(&hosts.a, "porta"), (&hosts.b, "portb")] {
        let link =
            format!("link add eth0 type veth peer name {port} netns {}\n", clients.init_pid());
        configure(host, &link)?;
    }
    let bridge = "link set lo up\nlink add br0 type bridge forward_delay 0 stp_state 0\n";
    let ports = "link set porta master br0 up\nlink set portb master br0 up\nlink set br0 up\n";
    let addresses = format!("addr add {v4}/24 dev br0\naddr add {v6}/64 dev br0 nodad\n");
    configure(clients, &[bridge, ports, &addresses].concat())?;
    configure(&hosts.a, &format!("{}addr add {RELAY_ADDRESS}/32 dev lo\n", bring_up(ADDRESS_A)))?;
    configure(&hosts.b, &bring_up(ADDRESS_B))?;
    let Address { v4, v6 } = SERVICE;
    let service = format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n");
    configure(&hosts.a, &service)
}
