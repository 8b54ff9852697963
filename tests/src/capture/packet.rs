//! What a test asks of a packet.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Bits of RFC 9293, 3.1.
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    pub from: IpAddr,
    pub to: IpAddr,
    pub transport: Transport,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp {
        from_port: u16,
        to_port: u16,
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        bytes: usize,
    },
    /// ICMP of either version.
    Icmp {
        kind: u8,
    },
    Other {
        protocol: u8,
    },
}

impl Packet {
    /// `None` when the frame has no whole header of IP.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let (kind, packet) = frame.get(12..)?.split_at_checked(2)?;
        match kind {
            [0x08, 0x00] => Self::version_4(packet),
            [0x86, 0xdd] => Self::version_6(packet),
            _ => None,
        }
    }

    fn version_4(packet: &[u8]) -> Option<Self> {
        let address = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok();
        let header = usize::from(packet.first()? & 0xf) * 4;
        let length = usize::from(half(packet, 2)?);
        let content = packet.get(header..)?;
        // Shorter packets than the shortest frame are filled up.
        let content =
            length.checked_sub(header).and_then(|to| content.get(..to)).unwrap_or(content);
        let transport = Transport::read(*packet.get(9)?, content)?;
        Some(Self { from: address(12)?.into(), to: address(16)?.into(), transport })
    }

    fn version_6(packet: &[u8]) -> Option<Self> {
        let address = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok();
        let transport = Transport::read(*packet.get(6)?, packet.get(40..)?)?;
        Some(Self { from: address(8)?.into(), to: address(24)?.into(), transport })
    }

    /// Both ends, for a segment of TCP.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Transport::Tcp { from_port, to_port, .. } = self.transport else { return None };
        Some((SocketAddr::new(self.from, from_port), SocketAddr::new(self.to, to_port)))
    }

    /// A reset, or an error of ICMP: what tells a peer that nobody is there.
    pub fn ends_connections(&self) -> bool {
        match self.transport {
            Transport::Tcp { flags, .. } => flags & flag::RST != 0,
            // Unreachable, source quench, redirect, time exceeded, parameter problem: RFC 792.
            Transport::Icmp { kind } if self.from.is_ipv4() => matches!(kind, 3..=5 | 11 | 12),
            // Errors, and a redirect: RFC 4443, RFC 4861.
            Transport::Icmp { kind } => kind < 128 || kind == 137,
            Transport::Other { .. } => false,
        }
    }
}

impl Transport {
    fn read(protocol: u8, content: &[u8]) -> Option<Self> {
        const ICMP: u8 = 1;
        const TCP: u8 = 6;
        const ICMP_6: u8 = 58;
        Some(match protocol {
            TCP => Self::tcp(content)?,
            ICMP | ICMP_6 => Self::Icmp { kind: *content.first()? },
            _ => Self::Other { protocol },
        })
    }

    fn tcp(segment: &[u8]) -> Option<Self> {
        let header = usize::from(segment.get(12)? >> 4) * 4;
        Some(Self::Tcp {
            from_port: half(segment, 0)?,
            to_port: half(segment, 2)?,
            sequence: word(segment, 4)?,
            acknowledged: word(segment, 8)?,
            flags: *segment.get(13)?,
            bytes: segment.len().checked_sub(header)?,
        })
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Port 80 to port 1000, with the number 5, acknowledges 9, and has two bytes.
    fn segment(flags: u8) -> Vec<u8> {
        let header = [0, 80, 0x03, 0xe8, 0, 0, 0, 5, 0, 0, 0, 9, 0x50, flags, 0, 0, 0, 0, 0, 0];
        [&header[..], b"hi"].concat()
    }

    fn over_4(protocol: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(20 + content.len()).unwrap();
        let header =
            [0x45, 0, 0, length, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        [&[0; 12][..], &[0x08, 0x00], &header, content, &[0; 6]].concat()
    }

    fn over_6(protocol: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let header = [0x60, 0, 0, 0, 0, length, protocol, 64];
        [&[0; 12][..], &[0x86, 0xdd], &header, &[1; 16], &[2; 16], content].concat()
    }

    #[test]
    fn a_segment_is_read_without_what_fills_its_frame() {
        let expected = Transport::Tcp {
            from_port: 80,
            to_port: 1000,
            sequence: 5,
            acknowledged: 9,
            flags: flag::ACK,
            bytes: 2,
        };
        let packet = Packet::read(&over_4(6, &segment(flag::ACK))).unwrap();
        assert_eq!(packet.transport, expected);
        assert_eq!(packet.ends().unwrap().0.to_string(), "192.0.2.1:80");
        assert!(!packet.ends_connections());
        assert_eq!(Packet::read(&over_6(6, &segment(flag::ACK))).unwrap().transport, expected);
    }

    #[test]
    fn what_tells_a_peer_that_nobody_is_there_is_known() {
        let tells = |frame: Vec<u8>| Packet::read(&frame).unwrap().ends_connections();
        assert!(tells(over_4(6, &segment(flag::RST | flag::ACK))));
        assert!(tells(over_4(1, &[3, 3])) && !tells(over_4(1, &[8, 0])));
        assert!(tells(over_6(58, &[1, 4])) && !tells(over_6(58, &[136, 0])));
        assert!(!tells(over_4(17, &[0; 8])));
    }

    #[test]
    fn what_is_no_packet_is_none() {
        assert_eq!(Packet::read(&[0; 13]), None);
        assert_eq!(Packet::read(&over_4(6, &[0; 12])), None);
        assert_eq!(Packet::read(&over_6(6, &[0xff; 14])), None);
    }
}
