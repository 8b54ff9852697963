//! An IP address with a port, as the `sockaddr` bytes the kernel keeps: ip(7), ipv6(7).

use crate::sys;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::{fmt, io};

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

/// Where a socket is bound and whom it is connected to, for people; either may be empty.
pub(super) fn ends(local: &[u8], peer: &[u8]) -> String {
    let end = |address: &[u8], none: &str| match address.is_empty() {
        true => none.to_owned(),
        false => Address(address).to_string(),
    };
    format!("{} to {}", end(local, "nowhere"), end(peer, "nobody"))
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

/// Of an address and a port, as the kernel has it.
pub(super) fn of(ip: IpAddr, port: u16) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => v4(ip, port),
        IpAddr::V6(ip) => v6(ip, port),
    }
}

/// Ends what connect(2) began; frees the port as well, unless bind(2) was told which.
pub(super) fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::sock::connect(socket, &[0; 16])
}

/// bind(2), also to an address that comes with the tree and is not here yet. The socket has its
/// options already.
pub(super) fn bind_coming(
    socket: BorrowedFd<'_>,
    address: &[u8],
    coming: &[IpAddr],
) -> io::Result<()> {
    let is_coming = is_among(address, coming);
    let address = scoped(socket, address);
    match sys::sock::bind(socket, &address) {
        Err(error) if is_coming && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
            transparently(socket, &address, || sys::sock::bind(socket, &address))
        }
        bound => bound,
    }
}

/// connect(2) of a socket whose own address may not be here yet: without help, IPv4 finds no route
/// from there.
pub(super) fn connect_coming(
    socket: BorrowedFd<'_>,
    peer: &[u8],
    coming: &[IpAddr],
) -> io::Result<()> {
    let peer = scoped(socket, peer);
    match is_among(&sys::sock::local_address(socket)?, coming) {
        true => transparently(socket, &peer, || sys::sock::connect(socket, &peer)),
        false => sys::sock::connect(socket, &peer),
    }
}

fn is_among(address: &[u8], coming: &[IpAddr]) -> bool {
    Address(address).ip().is_some_and(|ip| coming.contains(&ip.to_canonical()))
}

/// sin6_scope_id of ipv6(7).
const SCOPE: std::ops::Range<usize> = 24..28;

/// A link-local address counts devices, and they have other numbers here. Whoever has one is bound
/// to the device as well, by its name.
fn scoped(socket: BorrowedFd<'_>, address: &[u8]) -> Vec<u8> {
    let mut address = address.to_vec();
    let Some(scope) = address.get_mut(SCOPE).filter(|scope| **scope != [0; 4]) else {
        return address;
    };
    let mut name = [0; libc::IFNAMSIZ];
    let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    let filled = sys::sock::read_option(socket, level, option, &mut name).unwrap_or(0);
    let name = name.get(..filled.saturating_sub(1)).unwrap_or_default();
    let index = sys::device::index(socket, name).unwrap_or(0);
    scope.copy_from_slice(&index.to_ne_bytes());
    address
}

/// With IP_TRANSPARENT a socket may have any address; with IP_FREEBIND it may be bound to it, and
/// not be connected.
fn transparently(
    socket: BorrowedFd<'_>,
    address: &[u8],
    call: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let (level, name) = match Address(address).ip() {
        Some(IpAddr::V6(_)) => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
        _ => (libc::SOL_IP, libc::IP_TRANSPARENT),
    };
    let before = sys::sock::read_number(socket, level, name)?;
    sys::sock::set_number(socket, level, name, 1)?;
    let called = call();
    sys::sock::set_number(socket, level, name, before)?;
    called
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_socket_is_bound_and_connected_before_its_address_is_here() {
        let coming = [
            (libc::AF_INET, of([192, 0, 2, 7].into(), 4711), of([127, 0, 0, 1].into(), 9)),
            (
                libc::AF_INET6,
                of("2001:db8::7".parse().unwrap(), 4711),
                of(Ipv6Addr::LOCALHOST.into(), 9),
            ),
        ];
        for (domain, address, peer) in coming {
            let ip = Address(&address).ip().unwrap();
            let socket = sys::sock::socket(domain, libc::SOCK_DGRAM, 0).unwrap();
            let error = bind_coming(socket.as_fd(), &address, &[]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
            bind_coming(socket.as_fd(), &address, &[ip]).unwrap();
            connect_coming(socket.as_fd(), &peer, &[ip]).unwrap();
            assert_eq!(sys::sock::local_address(socket.as_fd()).unwrap(), address);
            let switch = |level, name| sys::sock::read_number(socket.as_fd(), level, name).unwrap();
            assert_eq!(switch(libc::SOL_IP, libc::IP_TRANSPARENT), 0);
        }
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        assert_eq!(Address(&v4(Ipv4Addr::LOCALHOST, 80)).to_string(), "127.0.0.1:80");
        assert_eq!(Address(&v6(Ipv6Addr::LOCALHOST, 443)).to_string(), "[::1]:443");
        assert_eq!(Address(&[9]).to_string(), "an unknown address");
        assert_eq!(Address(&v4(Ipv4Addr::LOCALHOST, 80)).on_any(), v4(Ipv4Addr::UNSPECIFIED, 80));
    }

    #[test]
    fn a_link_local_address_is_on_the_device_of_the_same_name() {
        let socket = sys::sock::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).unwrap();
        let mut address = v6("fe80::7".parse().unwrap(), 80);
        address[SCOPE].copy_from_slice(&4711_u32.to_ne_bytes());
        let (level, name) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
        sys::sock::set_option(socket.as_fd(), level, name, b"lo").unwrap();
        let lo = sys::device::index(socket.as_fd(), b"lo").unwrap();
        assert_eq!(scoped(socket.as_fd(), &address)[SCOPE], lo.to_ne_bytes());
        let global = v6("2001:db8::7".parse().unwrap(), 80);
        assert_eq!(scoped(socket.as_fd(), &global), global);
    }
}
