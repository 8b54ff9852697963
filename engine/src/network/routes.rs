//! The routes of this host, as far as an address that goes away could take them with it.

use super::address::{bytes, from_bytes};
use super::netlink::{Attributes, Message, Socket, attributes, number};
use crate::error::{Error, Object, OnObject as _};
use std::fmt;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A route that somebody set, and not the kernel for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// `None` is the default route.
    to: Option<IpAddr>,
    prefix: u8,
    pub(super) is_v4: bool,
    /// The devices that it leads through, by their index.
    pub(super) devices: Vec<u32>,
    /// The address that packets along it come from.
    pub(super) source: Option<IpAddr>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) => write!(f, "{to}/{}", self.prefix),
            None => write!(f, "default"),
        }
    }
}

/// Those of all tables.
pub(super) fn all() -> Result<Vec<Route>, Error> {
    let object = || Object::Network { name: "the routes".to_owned() };
    let message = Message::new(libc::RTM_GETROUTE, 0, &[0; 12], &Attributes::new());
    let list = Socket::open(libc::NETLINK_ROUTE)
        .and_then(|socket| socket.list(&message).map_err(io::Error::from));
    Ok(list.on("list", object)?.iter().filter_map(|body| read(body)).collect())
}

/// `struct rtmsg` and what follows it.
fn read(body: &[u8]) -> Option<Route> {
    const FIXED_BYTES: usize = 12;
    let (family, prefix) = (i32::from(*body.first()?), *body.get(1)?);
    let (protocol, flags) = (*body.get(5)?, number(body, 8)?);
    let rest = body.get(FIXED_BYTES..)?;
    let of = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let is_ip = matches!(family, libc::AF_INET | libc::AF_INET6);
    let is_somebodys = protocol != libc::RTPROT_KERNEL && flags & libc::RTM_F_CLONED == 0;
    let through = of(libc::RTA_OIF).and_then(|value| number(value, 0));
    let devices = through.into_iter().chain(of(libc::RTA_MULTIPATH).into_iter().flat_map(hops));
    (is_ip && is_somebodys).then(|| Route {
        to: of(libc::RTA_DST).and_then(from_bytes),
        prefix,
        is_v4: family == libc::AF_INET,
        devices: devices.collect(),
        source: of(libc::RTA_PREFSRC).and_then(from_bytes),
    })
}

/// The devices of `struct rtnexthop` one after the other.
fn hops(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let device = number(bytes, 4)?;
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        bytes = bytes.get(length.next_multiple_of(4).max(8)..).unwrap_or_default();
        Some(device)
    })
}

/// The address of this host from which it talks with another.
///
/// # Errors
/// ENETUNREACH and the like when there is no way to it.
pub fn route_source(peer: IpAddr) -> Result<IpAddr, Error> {
    let any: IpAddr = if peer.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // Connecting a UDP socket looks for the route and sends nothing; the port does not matter.
    const DISCARD: u16 = 9;
    let found = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((peer, DISCARD))?;
        Ok(socket.local_addr()?.ip())
    });
    found.on("find the way to", || Object::Network { name: peer.to_string() })
}

/// The kernel's own thread makes the way to an IPv6 address of this host, some time after the address
/// was added and also where nobody is asked whether he has it as well (addrconf_dad_work). Until then
/// what comes for it is thrown away, and an answer to a neighbour solicitation is waited for once
/// more, for a second.
const LOCAL_MAX: Duration = Duration::from_millis(200);

/// Waits until what comes for an address that was just added is heard. Not on a device that is down:
/// there nothing comes.
pub(super) fn wait_until_local(ip: IpAddr) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_micros(100);
    let end = Instant::now() + LOCAL_MAX;
    while !ends_here(ip)? && Instant::now() < end {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether the way to an address ends on this host.
fn ends_here(ip: IpAddr) -> io::Result<bool> {
    const TYPE: usize = 7;
    let (family, bits) = if ip.is_ipv4() { (libc::AF_INET, 32) } else { (libc::AF_INET6, 128) };
    let mut fixed = [0; 12];
    fixed[..2].copy_from_slice(&[u8::try_from(family).expect("a short family"), bits]);
    let to = Attributes::new().bytes(libc::RTA_DST, &bytes(ip));
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    socket.send(&Message::new(libc::RTM_GETROUTE, 0, &fixed, &to).encode(1))?;
    // An error is that there is no way.
    let found = socket.answers_at_once()?.into_iter().find(|one| one.kind == libc::RTM_NEWROUTE);
    Ok(found.is_some_and(|route| route.body.get(TYPE) == Some(&libc::RTN_LOCAL)))
}

#[cfg(test)]
mod tests {
    use super::super::hosts::Host;
    use super::*;

    #[test]
    fn the_source_is_the_address_that_the_route_gives() {
        let Some(host) = Host::new() else { return };
        host.device("d0");
        host.address("192.0.2.1", 24, "d0");
        host.address("2001:db8::1", 64, "d0");
        host.run(|| {
            let from = |peer: &str| route_source(peer.parse().unwrap()).map(|ip| ip.to_string());
            assert_eq!(from("192.0.2.9").unwrap(), "192.0.2.1");
            assert_eq!(from("2001:db8::9").unwrap(), "2001:db8::1");
            assert_eq!(from("127.0.0.1").unwrap(), "127.0.0.1");
            let error = from("198.51.100.1").unwrap_err();
            assert_eq!(error.to_string(), "find the way to 198.51.100.1");
        });
    }

    #[test]
    fn routes_through_several_devices_name_them_all() {
        let hop = |device: u32| [&[8, 0, 0, 0][..], &device.to_ne_bytes()].concat();
        assert_eq!(hops(&[hop(3), hop(4)].concat()).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(hops(&[0; 7]).count(), 0);
        assert_eq!(hops(&[0; 16]).count(), 2);
    }
}
