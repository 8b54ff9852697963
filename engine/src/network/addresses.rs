//! The addresses of this host: what is there, taken away, and put back as it was.
//!
//! Each change is made once however often it is asked for: an agent that was killed and started
//! again repeats what it had begun.

mod assigned;
mod examine;

use super::address::{Address, bytes};
use super::devices::{self, Device};
use super::netlink::{Attributes, Failure, Message, Socket};
use super::routes;
use crate::error::{Error, Object, OnObject as _};
pub use assigned::Assigned;
pub use examine::{examine_arrival, examine_removal};
use std::io;
use std::net::IpAddr;

/// Whether something had to be done. What was not done must not be undone either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Made,
    /// It was so already.
    None,
}

/// Every address of this host with its device.
///
/// # Errors
/// Those of netlink(7).
pub fn of_host() -> Result<Vec<Assigned>, Error> {
    let object = || Object::Network { name: "the addresses of this host".to_owned() };
    let message = Message::new(libc::RTM_GETADDR, 0, &[0; 8], &Attributes::new());
    let list = Socket::open(libc::NETLINK_ROUTE)
        .and_then(|socket| socket.list(&message).map_err(io::Error::from));
    let list = list.on("list", object)?;
    let devices = devices::all()?;
    Ok(list.iter().filter_map(|body| Assigned::read(body, &devices)).collect())
}

/// An address as it stands on this host, if it does: on the named device, with that prefix.
///
/// # Errors
/// Those of netlink(7).
pub fn find(address: &Address) -> Result<Option<Assigned>, Error> {
    Ok(of_host()?.into_iter().find(|assigned| assigned.is(address)))
}

/// Takes an address away. What it was is told before by [`find`], to be kept for [`put_back`].
///
/// # Errors
/// Those of netlink(7); the address is as it was.
pub fn remove(address: &Address) -> Result<Change, Error> {
    let Some(assigned) = find(address)? else { return Ok(Change::None) };
    match change(&assigned.removal()) {
        Err(failure) if failure.errno == libc::EADDRNOTAVAIL => Ok(Change::None),
        done => done.map(|()| Change::Made).on("remove", || address.object()),
    }
}

/// Puts an address back that was removed, with everything that it had: label, scope, broadcast
/// address, flags, metric, and what was left of its lifetimes.
///
/// # Errors
/// Those of netlink(7), and ENODEV when its device is gone.
pub fn put_back(assigned: &Assigned) -> Result<Change, Error> {
    let address = assigned.address().on("put back", || assigned.object())?;
    let device = device_named(&assigned.device).on("put back", || address.object())?;
    made(change(&assigned.addition(device.index)?))
        .map_err(io::Error::from)
        .and_then(|change| heard(address.ip, change))
        .on("put back", || address.object())
}

/// Adds an address that comes with a tree, at once: nobody is asked whether he has it as well
/// (IFA_F_NODAD), because for a moment the source's neighbours still think so.
///
/// # Errors
/// Those of netlink(7), and ENODEV when no device is its.
pub fn add(address: &Address) -> Result<Change, Error> {
    let here = of_host()?;
    if here.iter().any(|assigned| assigned.ip() == Some(address.ip)) {
        return Ok(Change::None);
    }
    let device = device_for(address, &here, &devices::all()?);
    let device = device.ok_or_else(no_device).on("find a device for", || address.object())?;
    made(change(&addition(address, device.index)))
        .map_err(io::Error::from)
        .and_then(|change| heard(address.ip, change))
        .on("add", || address.object())
}

/// The one that is named. Else the one whose network it is of; the longest prefix counts.
fn device_for(address: &Address, here: &[Assigned], devices: &[Device]) -> Option<Device> {
    let connected = || {
        let on = here.iter().filter_map(|assigned| Some((assigned.address().ok()?, assigned)));
        let around = on.filter(|(on, _)| on.contains(address.ip));
        around.max_by_key(|(on, _)| on.prefix).map(|(_, assigned)| assigned.device.as_str())
    };
    let name = address.device.as_deref().or_else(connected)?;
    devices.iter().find(|device| device.name == name).cloned()
}

fn device_named(name: &str) -> io::Result<Device> {
    let devices = devices::all().map_err(|error| error.source)?;
    devices.into_iter().find(|device| device.name == name).ok_or_else(no_device)
}

fn no_device() -> io::Error {
    io::Error::from_raw_os_error(libc::ENODEV)
}

fn addition(address: &Address, device: u32) -> Message {
    let family = if address.ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let family = u8::try_from(family).expect("a short family");
    let fixed = [&[family, address.prefix, 0, 0][..], &device.to_ne_bytes()].concat();
    let ip = bytes(address.ip);
    let attributes = Attributes::new()
        .bytes(libc::IFA_LOCAL, &ip)
        .bytes(libc::IFA_ADDRESS, &ip)
        .native(libc::IFA_FLAGS, libc::IFA_F_NODAD);
    Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed, &attributes)
}

fn change(message: &Message) -> Result<(), Failure> {
    Socket::open(libc::NETLINK_ROUTE)?.request(message)
}

fn made(done: Result<(), Failure>) -> Result<Change, Failure> {
    match done {
        Err(failure) if failure.errno == libc::EEXIST => Ok(Change::None),
        done => done.map(|()| Change::Made),
    }
}

/// When what comes for it arrives.
fn heard(ip: IpAddr, change: Change) -> io::Result<Change> {
    routes::wait_until_local(ip)?;
    Ok(change)
}

#[cfg(test)]
mod tests;
