//! What a lock is about: connections and doors, as they are on the wire.

use crate::error::{Error, Object};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A TCP connection of this host. Addresses of IPv4 may be mapped (`::ffff:192.0.2.1`), as sockets
/// of AF_INET6 have them. Flow labels and scopes are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

/// A door for new connections: a TCP port of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gate {
    /// `None` or an unspecified address: on every address of this host.
    pub address: Option<IpAddr>,
    pub port: u16,
}

/// The version of IP, and the key by which the kernel finds it: every part in network order, in
/// whole words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    V4(Vec<u8>),
    V6(Vec<u8>),
    /// A port on any address.
    Any(Vec<u8>),
}

impl Flow {
    pub(super) fn key(&self) -> Result<Key, Error> {
        let (local, peer) = (self.local.ip().to_canonical(), self.peer.ip().to_canonical());
        let key = [half(local, self.local.port()), half(peer, self.peer.port())].concat();
        let is_whole = |end: SocketAddr| end.port() != 0 && !end.ip().is_unspecified();
        match (local, peer) {
            _ if !is_whole(self.local) || !is_whole(self.peer) => {
                Err(self.nonsense("an end is open"))
            }
            (IpAddr::V4(_), IpAddr::V4(_)) => Ok(Key::V4(key)),
            (IpAddr::V6(_), IpAddr::V6(_)) => Ok(Key::V6(key)),
            _ => Err(self.nonsense("its ends are of different versions of IP")),
        }
    }

    fn nonsense(&self, why: &str) -> Error {
        Error::invalid("hold", Object::Network { name: self.to_string() }, why)
    }
}

impl Gate {
    pub(super) fn key(&self) -> Key {
        let address = self.address.map(|address| address.to_canonical());
        match address.filter(|address| !address.is_unspecified()) {
            None => Key::Any(port(self.port)),
            Some(v4 @ IpAddr::V4(_)) => Key::V4(half(v4, self.port)),
            Some(v6 @ IpAddr::V6(_)) => Key::V6(half(v6, self.port)),
        }
    }
}

fn half(address: IpAddr, number: u16) -> Vec<u8> {
    let mut key = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    key.extend(port(number));
    key
}

fn port(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    vec![high, low, 0, 0]
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection of {} with {}", self.local, self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(local: &str, peer: &str) -> Flow {
        Flow { local: local.parse().unwrap(), peer: peer.parse().unwrap() }
    }

    fn gate(address: &str) -> Gate {
        Gate { address: Some(address.parse().unwrap()), port: 80 }
    }

    #[test]
    fn a_mapped_address_is_ipv4_on_the_wire() {
        let plain = flow("192.0.2.1:80", "192.0.2.2:4711").key().unwrap();
        let mapped = flow("[::ffff:192.0.2.1]:80", "[::ffff:192.0.2.2]:4711").key().unwrap();
        assert_eq!(plain, mapped);
        let bytes = [192, 0, 2, 1, 0, 80, 0, 0, 192, 0, 2, 2, 0x12, 0x67, 0, 0];
        assert_eq!(plain, Key::V4(bytes.to_vec()));
        assert_eq!(gate("::ffff:192.0.2.1").key(), gate("192.0.2.1").key());
    }

    #[test]
    fn the_unspecified_address_is_every_address() {
        let any = Gate { address: None, port: 80 }.key();
        assert_eq!(any, gate("0.0.0.0").key());
        assert_eq!(any, gate("::").key());
        assert_eq!(any, gate("::ffff:0.0.0.0").key());
    }

    #[test]
    fn half_a_connection_cannot_be_held() {
        assert!(flow("192.0.2.1:80", "[2001:db8::1]:9").key().is_err());
        assert!(flow("0.0.0.0:80", "192.0.2.1:9").key().is_err());
        let error = flow("192.0.2.1:80", "192.0.2.1:0").key().unwrap_err();
        assert_eq!(error.to_string(), "hold the connection of 192.0.2.1:80 with 192.0.2.1:0");
    }
}
