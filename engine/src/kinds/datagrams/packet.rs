//! A datagram as a whole packet: RFC 768.

use super::super::address::Address;
use super::Datagram;
use crate::network::packet::{Header, UDP};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The packet that brings a datagram to that port, and where it is to. `None` for what cannot be brought
/// back as it was.
pub(super) fn of(datagram: &Datagram, port: u16, tells: bool) -> Option<(Vec<u8>, IpAddr)> {
    let sender = Address(&datagram.sender);
    let from = sender.ip()?.to_canonical();
    let to = match (from, receiver(&datagram.to)?.to_canonical()) {
        (IpAddr::V6(from), IpAddr::V6(to)) => bearable(from, to, tells)?.into(),
        (_, to) => to,
    };
    let hops = u8::try_from(datagram.ttl).ok()?;
    let class = u8::try_from(datagram.tos).ok()?;
    let header = Header { from, to, protocol: UDP, hops, class };
    Some((header.packet(&udp(datagram, [sender.port(), port], &header)?)?, to))
}

fn receiver(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
    let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into());
    v4().or_else(v6)
}

/// A link-local sender belongs to a link, and `lo` is another one. A group is none of `lo`'s, so
/// that the datagram goes to this host instead, unless the program is told that.
fn bearable(from: Ipv6Addr, to: Ipv6Addr, tells: bool) -> Option<Ipv6Addr> {
    match (from.is_unicast_link_local(), to.is_multicast()) {
        (true, _) => None,
        (false, true) if tells => None,
        (false, true) => Some(Ipv6Addr::LOCALHOST),
        (false, false) => Some(to),
    }
}

fn udp(datagram: &Datagram, ports: [u16; 2], header: &Header) -> Option<Vec<u8>> {
    let length = u16::try_from(datagram.content.len() + 8).ok()?.to_be_bytes();
    let [from, to] = ports.map(u16::to_be_bytes);
    let mut udp = [from, to, length, [0; 2]].concat();
    udp.extend(&datagram.content);
    let sum = match header.checksum(&udp) {
        // Zero would say that there is none.
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    Some(udp)
}
