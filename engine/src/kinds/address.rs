//! An IP address with a port, as the `sockaddr` bytes the kernel keeps: ip(7), ipv6(7).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Family, port in network order, address (after the flow for IPv6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address<'a>(pub(super) &'a [u8]);

impl Address<'_> {
    pub(super) fn port(&self) -> u16 {
        self.0.get(2..4).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]))
    }

    pub(super) fn ip(&self) -> Option<IpAddr> {
        let family = self.0.get(0..2).map(|two| i32::from(u16::from_ne_bytes([two[0], two[1]])))?;
        match family {
            libc::AF_INET => {
                Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.0.get(4..8)?).ok()?).into())
            }
            libc::AF_INET6 => {
                Some(Ipv6Addr::from(<[u8; 16]>::try_from(self.0.get(8..24)?).ok()?).into())
            }
            _ => None,
        }
    }

    /// The same port on every address of the host.
    pub(super) fn on_any(&self) -> Vec<u8> {
        let mut any = self.0.to_vec();
        let address = if any.len() < 24 { 4..8 } else { 8..24 };
        any.get_mut(address).into_iter().for_each(|bytes| bytes.fill(0));
        any
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port()),
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port()),
            None => write!(f, "an unknown address"),
        }
    }
}

/// `sockaddr_in` of an IPv4 address.
pub(super) fn v4(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut bytes = family(libc::AF_INET);
    bytes.extend(port.to_be_bytes());
    bytes.extend(ip.octets());
    bytes.extend([0; 8]);
    bytes
}

/// `sockaddr_in6` of an IPv6 address without flow or scope.
pub(super) fn v6(ip: Ipv6Addr, port: u16) -> Vec<u8> {
    let mut bytes = family(libc::AF_INET6);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(ip.octets());
    bytes.extend([0; 4]);
    bytes
}

fn family(family: i32) -> Vec<u8> {
    u16::try_from(family).unwrap_or_default().to_ne_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_people_write_them() {
        assert_eq!(Address(&v4(Ipv4Addr::LOCALHOST, 80)).to_string(), "127.0.0.1:80");
        assert_eq!(Address(&v6(Ipv6Addr::LOCALHOST, 443)).to_string(), "[::1]:443");
        assert_eq!(Address(&[9]).to_string(), "an unknown address");
        assert_eq!(Address(&v4(Ipv4Addr::LOCALHOST, 80)).on_any(), v4(Ipv4Addr::UNSPECIFIED, 80));
    }
}
