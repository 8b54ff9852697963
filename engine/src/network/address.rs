//! An address that follows a tree: `192.0.2.7/24`, `2001:db8::7/64@eth1`.

use crate::error::Object;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address, the length of its network's prefix in bits, and the device that it is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub ip: IpAddr,
    pub prefix: u8,
    /// `None`: on whichever device it is, or the one whose network it is of.
    pub device: Option<String>,
}

/// What is not an address, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {why}; write it as 192.0.2.7/24 or 2001:db8::7/64@eth0")]
pub struct NotAnAddress {
    text: String,
    why: &'static str,
}

/// The longest name of a device: IFNAMSIZ with its zero.
const DEVICE_BYTES_MAX: usize = 15;

impl Address {
    /// # Errors
    /// Says what of it no host could have.
    pub fn new(ip: IpAddr, prefix: u8, device: Option<String>) -> Result<Self, &'static str> {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        if ip != ip.to_canonical() {
            return Err("it is an IPv4 address within IPv6");
        }
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return Err("no other host can be reached by it");
        }
        if prefix == 0 || prefix > bits {
            return Err("its prefix is too short or too long");
        }
        if device.as_deref().is_some_and(|device| !is_device_name(device)) {
            return Err("no device can have that name");
        }
        Ok(Self { ip, prefix, device })
    }

    /// Whether another address is of the network that this one is of.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.ip, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                let differing = one.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                let differing = one.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }

    pub(super) fn object(&self) -> Object {
        Object::Network { name: format!("address {self}") }
    }
}

/// Whether a network device can be called so.
#[must_use]
pub fn is_device_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte > b' ' && byte != b'/' && byte != b':' && byte != 0x7f;
    (1..=DEVICE_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && !matches!(name, "." | "..")
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let not = |why| NotAnAddress { text: text.to_owned(), why };
        let (network, device) = match text.split_once('@') {
            Some((network, device)) => (network, Some(device.to_owned())),
            None => (text, None),
        };
        let (ip, prefix) = network.split_once('/').ok_or_else(|| not("it has no prefix"))?;
        let ip = ip.parse().map_err(|_| not("it is not of IPv4 or IPv6"))?;
        let prefix = prefix.parse().map_err(|_| not("its prefix is not a number"))?;
        Self::new(ip, prefix, device).map_err(not)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)?;
        match &self.device {
            Some(device) => write!(f, "@{device}"),
            None => Ok(()),
        }
    }
}

/// In network order.
pub(super) fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_as_it_was_written() {
        for text in
            ["192.0.2.7/24", "198.51.100.1/32@eth0", "2001:db8::7/64", "2001:db8::7/128@br-0.1"]
        {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        for (text, why) in [
            ("192.0.2.7", "it has no prefix"),
            ("192.0.2/24", "it is not of IPv4 or IPv6"),
            ("192.0.2.7/x", "its prefix is not a number"),
            ("192.0.2.7/33", "its prefix is too short or too long"),
            ("2001:db8::7/0", "its prefix is too short or too long"),
            ("127.0.0.1/8", "no other host can be reached by it"),
            ("::ffff:192.0.2.7/96", "it is an IPv4 address within IPv6"),
            ("192.0.2.7/24@", "no device can have that name"),
            ("192.0.2.7/24@../x", "no device can have that name"),
            ("192.0.2.7/24@sixteen_bytes_xx", "no device can have that name"),
        ] {
            let read = text.parse::<Address>();
            assert_eq!(read.as_ref().err().map_or("", |error| error.why), why, "{text}");
        }
        let error = "hosta".parse::<Address>().unwrap_err().to_string();
        let advice = "write it as 192.0.2.7/24 or 2001:db8::7/64@eth0";
        assert_eq!(error, format!("\"hosta\" is not an address: it has no prefix; {advice}"));
    }

    #[test]
    fn bytes_of_another_length_are_no_address() {
        for bytes in [&[][..], &[1; 5], &[1; 15], &[1; 17]] {
            assert_eq!(from_bytes(bytes), None);
        }
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let address: Address = "192.0.2.7/25".parse().unwrap();
        assert!(address.contains([192, 0, 2, 127].into()));
        assert!(!address.contains([192, 0, 2, 128].into()));
        assert!(!address.contains("2001:db8::1".parse().unwrap()));
        let address: Address = "2001:db8::7/64".parse().unwrap();
        assert!(address.contains("2001:db8::ffff:1".parse().unwrap()));
        assert!(!address.contains("2001:db8:0:1::1".parse().unwrap()));
    }
}
