//! One segment that came, and how it is sent on.

use super::super::Flow;
use super::super::packet::{HOPS, Header, Sender, TCP};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A segment as it was received, without what belongs to the way it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// `local` is where it was sent to.
    pub(super) flow: Flow,
    /// With its options.
    header: Vec<u8>,
    content: Vec<u8>,
}

/// Offsets and bits of RFC 9293, 3.1.
const SEQUENCE: usize = 4;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Received segments may have been put together by the device (GRO), up to 64 KiB; sent, each has
/// to fit into the smallest packet that every link of IPv6 takes.
const CONTENT_BYTES_MAX: usize = 1280 - 40 - 60;

impl Segment {
    /// `None` for resets, and what is no segment.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let (from, to, tcp) = opened(packet)?;
        let half = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
        let header_bytes = usize::from(tcp.get(12)? >> 4) * 4;
        let (header, content) = tcp.split_at_checked(header_bytes)?;
        let flags = *header.get(FLAGS)?;
        let flow =
            Flow { local: SocketAddr::new(to, half(2)?), peer: SocketAddr::new(from, half(0)?) };
        (flags & RST == 0 && header_bytes >= 20).then(|| Self {
            flow,
            header: header.to_vec(),
            content: content.to_vec(),
        })
    }

    /// Not so bare acknowledgements: what they say is said with whatever comes next.
    pub(super) fn has_to_be_said_again(&self) -> bool {
        !self.content.is_empty() || self.header[FLAGS] & (SYN | FIN) != 0
    }

    /// Somebody who wants to be let in.
    pub(super) fn is_newcomer(&self) -> bool {
        self.header[FLAGS] & (SYN | ACK) == SYN
    }

    #[cfg(test)]
    pub(super) fn content_bytes(&self) -> usize {
        self.content.len()
    }

    /// In as many packets as it takes.
    pub(super) fn send(&self) -> io::Result<()> {
        let to = self.flow.local.ip();
        let sender = Sender::open(to)?;
        let mut parts: Vec<&[u8]> = self.content.chunks(CONTENT_BYTES_MAX).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        let mut offset = 0;
        for (number, part) in parts.into_iter().enumerate() {
            let packet = self.packet(part, offset, number == last);
            sender.send(&packet.ok_or(io::ErrorKind::InvalidInput)?, to)?;
            offset += u32::try_from(part.len()).unwrap_or_default();
        }
        Ok(())
    }

    fn packet(&self, part: &[u8], offset: u32, is_last: bool) -> Option<Vec<u8>> {
        let mut tcp = self.header.clone();
        let number = [0, 1, 2, 3].map(|at| tcp[SEQUENCE + at]);
        let number = u32::from_be_bytes(number).wrapping_add(offset);
        tcp[SEQUENCE..SEQUENCE + 4].copy_from_slice(&number.to_be_bytes());
        if !is_last {
            tcp[FLAGS] &= !(FIN | PSH);
        }
        // A device may have left it to another one to calculate it.
        tcp[CHECKSUM..CHECKSUM + 2].fill(0);
        tcp.extend_from_slice(part);
        let (from, to) = (self.flow.peer.ip(), self.flow.local.ip());
        let header = Header { from, to, protocol: TCP, hops: HOPS, class: 0 };
        let sum = header.checksum(&tcp);
        tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        header.packet(&tcp)
    }
}

/// From, to, and what is in it. Fragments are not put together.
fn opened(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let four = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok();
    let sixteen = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok();
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            let is_fragment = packet.get(6)? & 0x3f != 0 || *packet.get(7)? != 0;
            // Shorter packets than the shortest frame are filled up. One that was put together may be
            // too long for the field.
            let end = if length == 0 { packet.len() } else { length.min(packet.len()) };
            let tcp = packet.get(header..end)?;
            (!is_fragment).then_some((four(12)?.into(), four(16)?.into(), tcp))
        }
        6 => {
            let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            let end = if length == 0 { packet.len() } else { (40 + length).min(packet.len()) };
            Some((sixteen(8)?.into(), sixteen(24)?.into(), packet.get(40..end)?))
        }
        _ => None,
    }
}
