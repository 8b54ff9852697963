//! The network devices of this host.

use super::netlink::{Attributes, Message, Socket, attributes, number};
use crate::error::{Error, Object, OnObject as _};
use std::io;

/// A network device, as rtnetlink(7) tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    /// ARPHRD_*.
    kind: u16,
    /// IFF_*, netdevice(7).
    flags: u32,
    /// Its own address on the link.
    pub(super) hardware: Vec<u8>,
}

const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const NO_ARP: u32 = 0x80;
const LOWER_UP: u32 = 0x1_0000;

impl Device {
    pub(super) fn is_up(&self) -> bool {
        self.flags & UP != 0
    }

    /// Whether a cable is plugged in.
    pub(super) fn has_carrier(&self) -> bool {
        self.flags & LOWER_UP != 0
    }

    /// Whether somebody on its link asks for hardware addresses.
    pub(super) fn has_neighbours(&self) -> bool {
        self.flags & (LOOPBACK | NO_ARP) == 0
    }

    pub(super) fn is_ethernet(&self) -> bool {
        self.kind == libc::ARPHRD_ETHER && self.hardware.len() == 6
    }
}

pub(super) fn all() -> Result<Vec<Device>, Error> {
    let object = || Object::Network { name: "the network devices".to_owned() };
    let message = Message::new(libc::RTM_GETLINK, 0, &[0; 16], &Attributes::new());
    let list = Socket::open(libc::NETLINK_ROUTE)
        .and_then(|socket| socket.list(&message).map_err(io::Error::from));
    Ok(list.on("list", object)?.iter().filter_map(|body| read(body)).collect())
}

/// `struct ifinfomsg` and what follows it.
fn read(body: &[u8]) -> Option<Device> {
    let of = |wanted| {
        let mut all = attributes(body.get(16..).unwrap_or_default());
        all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    };
    let name = String::from_utf8_lossy(of(libc::IFLA_IFNAME)?);
    Some(Device {
        index: number(body, 4)?,
        name: name.trim_end_matches('\0').to_owned(),
        kind: u16::from_ne_bytes([body[2], body[3]]),
        flags: number(body, 8)?,
        hardware: of(libc::IFLA_ADDRESS).unwrap_or_default().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::hosts::Host;
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        let (Some(one), Some(other)) = (Host::new(), Host::new()) else { return };
        one.cable("cable0", &other, "there0");
        let all = one.run(|| all().unwrap());
        let named = |name: &str| all.iter().find(|device| device.name == name).unwrap();
        let (cable, lo) = (named("cable0"), named("lo"));
        assert!(
            cable.is_up() && cable.has_carrier() && cable.is_ethernet() && cable.has_neighbours()
        );
        assert!(lo.is_up() && !lo.has_neighbours() && !lo.is_ethernet());
        other.set_down("there0");
        let device = one.run(|| super::all().unwrap()).into_iter().find(|one| one.name == "cable0");
        assert!(device.is_some_and(|device| device.is_up() && !device.has_carrier()));
    }
}
