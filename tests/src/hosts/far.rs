//! A host behind a bad line: its frames reach the bridge late, and not all of them.

use super::{Host, TwoHosts, bring_up, configure, setup};
use crate::hosts::host::Address;
use crate::place;
use crate::relay::Conditions;
use anyhow::{Context, Result};

const ADDRESS_FAR: Address = Address { v4: "192.0.2.4", v6: "2001:db8::4" };

/// Makes the host, and the line between it and the bridge on the host of the `clients`. Ends with both.
pub fn host(hosts: &TwoHosts, clients: &Host, conditions: &Conditions, seed: u64) -> Result<Host> {
    let far = Host::new(ADDRESS_FAR, setup("far", 40_000, hosts.shared())?)?;
    let link = format!("link add eth0 type veth peer name line netns {}\n", clients.init_pid());
    configure(&far, &[&link, &*bring_up(ADDRESS_FAR)].concat())?;
    configure(
        clients,
        "link add lineport type veth peer name portfar\nlink set portfar master br0 up\n\
         link set line addrgenmode none up\nlink set lineport addrgenmode none up\n",
    )?;
    for host in [&far, &hosts.a, &hosts.b] {
        segment_in_software(host)?;
    }
    let [delay_ms, loss] = [conditions.delay_ms, conditions.loss_permille].map(|n| n.to_string());
    let line = place::program("line")?;
    clients.spawn(&[&line, "line", "lineport", &delay_ms, &loss, &seed.to_string()])?;
    Ok(far)
}

/// A veth pair carries pieces of 64 KiB and checksums that nobody has computed. On a line every frame
/// is whole: no longer than the MTU, so that one that is lost is one segment.
fn segment_in_software(host: &Host) -> Result<()> {
    let set = host.run(&["ethtool", "-K", "eth0", "tx", "off"])?;
    set.success().map(drop).with_context(|| format!("ethtool on {}", host.name()))
}
