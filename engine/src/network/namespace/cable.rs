//! The host's end of a cable (veth) that leads into a tree's namespace.
//!
//! While it is down nothing comes in or goes out, whatever the sockets at the other end do: that is
//! how a tree's connections are kept silent as one. It outlives whoever has set it, so it is written
//! down before, and whoever comes after him sets it up again.

use super::super::netlink::{Attributes, Failure, Message, Socket, attributes, number};
use super::link::{self, Listed, UP, header, request};
use super::{NAME, Namespace};
use crate::error::{Error, Object, OnObject as _};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

/// The host's end, as it was before anything was done to it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Cable {
    #[prost(uint32, tag = "1")]
    pub index: u32,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bool, tag = "3")]
    pub was_up: bool,
    /// The device at the other end, by its index there.
    #[prost(uint32, tag = "4")]
    pub leads_to: u32,
    /// The bridge that it is a port of.
    #[prost(string, optional, tag = "5")]
    pub bridge: Option<String>,
    #[prost(uint32, tag = "6")]
    pub mtu_bytes: u32,
    /// The bridge tells VLANs apart, so its port has settings of its own.
    #[prost(bool, tag = "7")]
    pub bridge_has_vlans: bool,
}

/// IFLA_BR_VLAN_FILTERING of linux/if_link.h.
const VLAN_FILTERING: u16 = 7;
/// IFLA_BRPORT_STATE of linux/if_link.h, and BR_STATE_FORWARDING of linux/if_bridge.h.
const PORT_STATE: u16 = 1;
const FORWARDS: u8 = 3;

/// Those of this host that lead into a namespace. The calling thread is on the host.
///
/// # Errors
/// Those of netlink(7).
pub fn into(namespace: &Namespace) -> Result<Vec<Cable>, Error> {
    let devices = link::all()?;
    // To list them has given the namespace a number here, if one of them leads there.
    let Some(number) = number_of(namespace)? else { return Ok(Vec::new()) };
    let leads_there = |device: &&Listed| {
        device.kind() == "veth" && device.number(libc::IFLA_LINK_NETNSID) == Some(number)
    };
    let cables = devices.iter().filter(leads_there);
    Ok(cables.map(|device| Cable::read(device, &devices)).collect())
}

/// What the host calls it: RTM_GETNSID. `None` when it has no name for it.
fn number_of(namespace: &Namespace) -> Result<Option<u32>, Error> {
    const NSID: u16 = 1;
    const FD: u16 = 3;
    const NONE: u32 = u32::MAX;
    let fd = namespace.as_fd().as_raw_fd().unsigned_abs();
    let message = Message::new(libc::RTM_GETNSID, 0, &[0; 4], &Attributes::new().native(FD, fd));
    let answer = Socket::open(libc::NETLINK_ROUTE)
        .and_then(|socket| socket.ask(&message).map_err(io::Error::from));
    let answer = answer.on("name", || Object::Network { name: NAME.to_owned() })?;
    let rest = answer.get(4..).unwrap_or_default();
    let found = attributes(rest).find(|(kind, _)| *kind == NSID);
    Ok(found.and_then(|(_, value)| number(value, 0)).filter(|number| *number != NONE))
}

impl Cable {
    fn read(device: &Listed, devices: &[Listed]) -> Self {
        let master = device.number(libc::IFLA_MASTER);
        let bridge = devices.iter().find(|other| Some(other.index) == master);
        let filters = bridge.and_then(|bridge| bridge.own(VLAN_FILTERING));
        Self {
            index: device.index,
            name: device.name.clone(),
            was_up: device.flags & UP != 0,
            leads_to: device.number(libc::IFLA_LINK).unwrap_or_default(),
            bridge: bridge.filter(|bridge| bridge.kind() == "bridge").map(|b| b.name.clone()),
            mtu_bytes: device.number(libc::IFLA_MTU).unwrap_or_default(),
            bridge_has_vlans: filters.is_some_and(|filters| filters != [0]),
        }
    }

    fn object(&self) -> Object {
        Object::Network { name: format!("device {}", self.name) }
    }

    /// From here on nothing comes through.
    ///
    /// # Errors
    /// Those of netlink(7); it is as it was.
    pub fn cut(&self) -> Result<(), Error> {
        self.change(0).on("set down", || self.object())
    }

    /// It is as it was before it was cut. One that is gone by now is nobody's any more.
    ///
    /// # Errors
    /// Those of netlink(7).
    pub fn join(&self) -> Result<(), Error> {
        match self.is_there()? && self.was_up {
            true => self.change(UP).on("set up", || self.object()),
            false => Ok(()),
        }
    }

    /// It has moved away: both ends of it end.
    ///
    /// # Errors
    /// Those of netlink(7).
    pub fn remove(&self) -> Result<(), Error> {
        if !self.is_there()? {
            return Ok(());
        }
        let header = header(self.index, 0, 0);
        match request(libc::RTM_DELLINK, 0, &header, &Attributes::new()) {
            // The namespace has ended meanwhile, and took it with it.
            Err(failure) if failure.errno == libc::ENODEV => Ok(()),
            removed => removed.on("remove", || self.object()),
        }
    }

    /// A number is given out again only when all others were; the name makes it certain.
    fn is_there(&self) -> Result<bool, Error> {
        Ok(link::one(self.index)?.is_some_and(|device| device.name == self.name))
    }

    fn change(&self, flags: u32) -> Result<(), Failure> {
        request(libc::RTM_NEWLINK, 0, &header(self.index, flags, UP), &Attributes::new())
    }

    /// Makes it a port of a bridge, still down.
    pub(super) fn plug_into(&self, bridge: &str) -> Result<(), Error> {
        let object = || Object::Network { name: format!("bridge {bridge}") };
        let found = bridge_named(bridge)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let master = Attributes::new().native(libc::IFLA_MASTER, found.on("find", object)?);
        request(libc::RTM_NEWLINK, 0, &header(self.index, 0, 0), &master).on("plug into", object)
    }

    /// Sets it up, and waits until its bridge lets frames through: the kernel does that aside.
    pub(super) fn let_through(&self) -> Result<(), Error> {
        /// Some 100 us; a bridge with a spanning tree takes many seconds, for which nobody waits.
        const OPENS_MAX: Duration = Duration::from_millis(100);
        self.change(UP).on("set up", || self.object())?;
        let end = Instant::now() + OPENS_MAX;
        while !self.is_open()? && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    fn is_open(&self) -> Result<bool, Error> {
        let forwards = |device: &Listed| device.port(PORT_STATE).is_none_or(|s| s == [FORWARDS]);
        Ok(link::one(self.index)?.is_none_or(|device| device.is_open() && forwards(&device)))
    }
}

/// The index of a bridge of this host.
pub(super) fn bridge_named(name: &str) -> Result<Option<u32>, Error> {
    let is_it = |device: &&Listed| device.name == name && device.kind() == "bridge";
    Ok(link::all()?.iter().find(is_it).map(|device| device.index))
}
