//! What would be lost with an address, and what it would not find, said before anything is changed.

use super::super::address::Address;
use super::super::devices::{self, Device};
use super::super::routes;
use super::{Assigned, device_for, of_host};
use crate::error::Error;
use crate::refusal::Refusal;
use std::fs;
use std::net::IpAddr;

/// Why an address must not be taken from this host. `destination` is the address at which the
/// destination is reached, if that is known already.
///
/// # Errors
/// Those of netlink(7).
pub fn examine_removal(
    address: &Address,
    destination: Option<IpAddr>,
) -> Result<Vec<Refusal>, Error> {
    let here = of_host()?;
    let Some(assigned) = here.iter().find(|assigned| assigned.is(address)) else {
        return Ok(vec![refuse(
            address,
            "is not on this host with that prefix and device",
            "`ip address` shows what is.",
        )]);
    };
    let way = destination.map(routes::route_source).transpose()?;
    let ours = (way == Some(address.ip)).then(|| {
        refuse(
            address,
            "is the one from which this host talks with the destination",
            "Give the host an address of its own, and the program another.",
        )
    });
    let lost = [hangers_on(address, assigned, &here), lost_routes(address, assigned, &here)?];
    Ok(ours.into_iter().chain(lost.into_iter().flatten()).collect())
}

/// With the first address of a network, the kernel takes away the others of it on that device,
/// unless it is told to promote one of them.
fn hangers_on(address: &Address, assigned: &Assigned, here: &[Assigned]) -> Option<Refusal> {
    if assigned.is_secondary() || promotes(&assigned.device) {
        return None;
    }
    let hang_on = here.iter().filter(|other| {
        other.device == assigned.device
            && other.is_secondary()
            && other.prefix() == address.prefix
            && other.ip().is_some_and(|ip| address.contains(ip))
    });
    let names = list(hang_on.filter_map(Assigned::ip));
    let sysctl = format!("net.ipv4.conf.{}.promote_secondaries", assigned.device);
    (!names.is_empty()).then(|| {
        refuse(
            address,
            format!("takes {names} with it, its secondary addresses"),
            format!("Set {sysctl} to 1: `sysctl {sysctl}=1`."),
        )
    })
}

/// `all` or the device: either is enough.
fn promotes(device: &str) -> bool {
    ["all", device].iter().any(|name| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/promote_secondaries");
        fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
    })
}

/// Those that name it as the source of their packets; and with the last IPv4 address of a device,
/// all of IPv4 that lead through it.
fn lost_routes(
    address: &Address,
    assigned: &Assigned,
    here: &[Assigned],
) -> Result<Option<Refusal>, Error> {
    let is_v4 = |one: &Assigned| one.ip().is_some_and(|ip| ip.is_ipv4());
    let on_device = here.iter().filter(|one| one.device == assigned.device && is_v4(one));
    let is_last = address.ip.is_ipv4() && on_device.count() == 1;
    let devices = devices::all()?;
    let index = devices.iter().find(|one| one.name == assigned.device).map(|one| one.index);
    let lost = routes::all()?.into_iter().filter(|route| {
        let through = index.is_some_and(|index| route.devices.contains(&index));
        route.source == Some(address.ip) || is_last && route.is_v4 && through
    });
    let names = list(lost);
    Ok((!names.is_empty()).then(|| {
        let reason = format!("takes routes with it: {names}");
        refuse(address, reason, "Give the device another address, and let the routes use that.")
    }))
}

/// What this host lacks for an address that comes. One that is here already lacks nothing.
///
/// # Errors
/// Those of netlink(7).
pub fn examine_arrival(address: &Address) -> Result<Vec<Refusal>, Error> {
    let here = of_host()?;
    if here.iter().any(|assigned| assigned.ip() == Some(address.ip)) {
        return Ok(Vec::new());
    }
    let device = device_for(address, &here, &devices::all()?);
    Ok(lack(address, device.as_ref()).into_iter().collect())
}

fn lack(address: &Address, device: Option<&Device>) -> Option<Refusal> {
    let Some(device) = device else {
        let reason = match &address.device {
            Some(name) => format!("has no device here: there is no {name}"),
            None => "is of no network that this host has a device on".to_owned(),
        };
        return Some(refuse(address, reason, "Name a device of the destination: ADDR/LEN@DEV."));
    };
    let name = &device.name;
    if !device.is_up() {
        let advice = format!("`ip link set {name} up`.");
        return Some(refuse(address, format!("has no device here: {name} is down"), advice));
    }
    (!device.has_carrier()).then(|| {
        let reason = format!("would reach nobody: {name} has no carrier");
        refuse(address, reason, "Plug it in, or name another device.")
    })
}

fn refuse(address: &Address, reason: impl Into<String>, advice: impl Into<String>) -> Refusal {
    Refusal { object: address.object(), reason: reason.into(), advice: advice.into() }
}

fn list(all: impl Iterator<Item = impl ToString>) -> String {
    all.map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}
