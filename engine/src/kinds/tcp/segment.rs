//! A segment that a peer sends again in our words: it has been received once, on another host.

use crate::network::Flow;
use crate::network::packet::{HOPS, Header, Sender, TCP};
use std::io;

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    /// Not scaled yet.
    pub(super) window: u16,
}

const FIN: u8 = 0x01;
const ACK: u8 = 0x10;
const HEADER_BYTES: usize = 20;

impl Segment {
    /// "That was all", as if it came from the peer over the loopback device.
    pub(super) fn finish(self, flow: &Flow) -> io::Result<()> {
        self.send(flow, FIN | ACK)
    }

    /// "Are you there?", in the same way: the number is one that was heard long ago.
    pub(super) fn ask(self, flow: &Flow) -> io::Result<()> {
        self.send(flow, ACK)
    }

    fn send(self, flow: &Flow, flags: u8) -> io::Result<()> {
        let to = flow.local.ip();
        let packet =
            header(flow).packet(&self.bytes(flow, flags)).ok_or(io::ErrorKind::InvalidInput)?;
        Sender::open(to)?.send(&packet, to)
    }

    fn bytes(self, flow: &Flow, flags: u8) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(flow.peer.port().to_be_bytes());
        bytes.extend(flow.local.port().to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        bytes.extend([5 << 4, flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        let sum = header(flow).checksum(&bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

fn header(flow: &Flow) -> Header {
    let (from, to) = (flow.peer.ip(), flow.local.ip());
    Header { from, to, protocol: TCP, hops: HOPS, class: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_sums_up_to_nothing_with_its_checksum() {
        for (local, peer) in [("192.0.2.1:80", "198.51.100.9:4711"), ("[2001:db8::1]:1", "[2001:db8::2]:65535")] {
            let flow = Flow { local: local.parse().unwrap(), peer: peer.parse().unwrap() };
            let segment = Segment { sequence: u32::MAX, acknowledged: 77, window: 0xfedc };
            assert_eq!(header(&flow).checksum(&segment.bytes(&flow, FIN | ACK)), 0);
        }
    }
}
