//! An address as it stands on a device, with every attribute that the kernel tells.

use super::super::address::{Address, from_bytes};
use super::super::devices::Device;
use super::super::netlink::{Attributes, Message, attributes, number};
use crate::error::{Error, Object};
use std::io;
use std::net::IpAddr;

/// What rtnetlink(7) says of an address, word for word: so it can be put back with what we do not
/// know of as well. It can be written down before the address is removed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Assigned {
    /// Devices get other numbers when they are made again; this is the name.
    #[prost(string, tag = "1")]
    pub device: String,
    /// `struct ifaddrmsg` and attributes.
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

/// `struct ifaddrmsg`.
const FIXED_BYTES: usize = 8;
/// What the kernel finds out by itself, and says of an address that it has.
const STATE: u32 = libc::IFA_F_SECONDARY
    | libc::IFA_F_DADFAILED
    | libc::IFA_F_TENTATIVE
    | libc::IFA_F_OPTIMISTIC
    | libc::IFA_F_PERMANENT;
/// Lifetimes that never end: INFINITY_LIFE_TIME.
const FOREVER: u32 = u32::MAX;

impl Assigned {
    pub(super) fn read(body: &[u8], devices: &[Device]) -> Option<Self> {
        let index = number(body, 4)?;
        let device = devices.iter().find(|device| device.index == index)?.name.clone();
        let assigned = Self { device, body: body.to_vec() };
        assigned.ip().is_some().then_some(assigned)
    }

    /// IFA_LOCAL; where there is none (IPv6 without a peer), IFA_ADDRESS.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let ip = self.attribute(libc::IFA_LOCAL).or_else(|| self.attribute(libc::IFA_ADDRESS));
        ip.and_then(from_bytes)
    }

    /// In bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.body.get(1).copied().unwrap_or_default()
    }

    /// RT_SCOPE_*: 0 is the whole world, 253 the link, 254 this host.
    #[must_use]
    pub fn scope(&self) -> u8 {
        self.body.get(3).copied().unwrap_or_default()
    }

    /// IFA_F_*.
    #[must_use]
    pub fn flags(&self) -> u32 {
        let short = self.body.get(2).copied().unwrap_or_default().into();
        self.attribute(libc::IFA_FLAGS).and_then(|flags| number(flags, 0)).unwrap_or(short)
    }

    /// Whether it hangs on another address of its network (IPv4). The same flag means *temporary*
    /// for IPv6.
    #[must_use]
    pub fn is_secondary(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_ipv4()) && self.flags() & libc::IFA_F_SECONDARY != 0
    }

    /// IPv4 only: the name that ifconfig(8) knows it by.
    #[must_use]
    pub fn label(&self) -> Option<String> {
        let label = self.attribute(libc::IFA_LABEL)?;
        Some(String::from_utf8_lossy(label).trim_end_matches('\0').to_owned())
    }

    /// How long it is valid yet, in seconds; `None` is for ever.
    #[must_use]
    pub fn valid_s(&self) -> Option<u32> {
        self.lifetime(4)
    }

    /// How long new connections may use it yet, in seconds; `None` is for ever.
    #[must_use]
    pub fn preferred_s(&self) -> Option<u32> {
        self.lifetime(0)
    }

    /// `struct ifa_cacheinfo`.
    fn lifetime(&self, at: usize) -> Option<u32> {
        let times = self.attribute(libc::IFA_CACHEINFO)?;
        number(times, at).filter(|seconds| *seconds != FOREVER)
    }

    /// # Errors
    /// When no tree could bring it: an address of loopback, for example.
    pub fn address(&self) -> io::Result<Address> {
        let nonsense = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let ip = self.ip().ok_or_else(|| nonsense("it is not of IPv4 or IPv6"))?;
        Address::new(ip, self.prefix(), Some(self.device.clone())).map_err(nonsense)
    }

    pub(super) fn is(&self, address: &Address) -> bool {
        self.ip() == Some(address.ip)
            && self.prefix() == address.prefix
            && address.device.as_ref().is_none_or(|device| *device == self.device)
    }

    pub(super) fn object(&self) -> Object {
        let ip = self.ip().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
        Object::Network { name: format!("address {ip}/{}@{}", self.prefix(), self.device) }
    }

    fn attribute(&self, wanted: u16) -> Option<&[u8]> {
        self.attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.body.get(FIXED_BYTES..).unwrap_or_default())
    }

    pub(super) fn removal(&self) -> Message {
        let named = [libc::IFA_LOCAL, libc::IFA_ADDRESS, libc::IFA_LABEL];
        let named = self.attributes().filter(|(kind, _)| named.contains(kind));
        let attributes = named.fold(Attributes::new(), |all, (kind, value)| all.bytes(kind, value));
        Message::new(libc::RTM_DELADDR, 0, &self.body[..FIXED_BYTES], &attributes)
    }

    /// # Errors
    /// When it was not written down by us.
    pub(super) fn addition(&self, device: u32) -> Result<Message, Error> {
        let fixed = self
            .body
            .get(..FIXED_BYTES)
            .ok_or_else(|| Error::invalid("put back", self.object(), "what it was is cut off"))?;
        let fixed = [&[fixed[0], fixed[1], 0, fixed[3]], &device.to_ne_bytes()[..]].concat();
        // As for one that comes: nobody is asked whether he has it.
        let at_once = if self.ip().is_some_and(|ip| ip.is_ipv6()) { libc::IFA_F_NODAD } else { 0 };
        let flags = self.flags() & !STATE | at_once;
        let others = self.attributes().filter(|(kind, _)| *kind != libc::IFA_FLAGS);
        let attributes =
            others.fold(Attributes::new(), |all, (kind, value)| all.bytes(kind, value));
        let attributes = attributes.native(libc::IFA_FLAGS, flags);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        Ok(Message::new(libc::RTM_NEWADDR, flags, &fixed, &attributes))
    }
}
