//! What reaches the client through its cables.

use super::world::World;
use crate::sys;
use nix::sys::socket::{LinkAddr, recvfrom};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// Listens at both cables from the moment it is made.
#[derive(Debug)]
pub(super) struct Cables(OwnedFd);

/// packet(7): what is for this host, not what it has sent.
const PACKET_HOST: u8 = 0;
const ETH_P_ALL: u16 = 3;
const ROOM_BYTES: i32 = 64 << 20;

impl Cables {
    pub(super) fn watch(world: &World) -> Self {
        world.client.run(|| {
            let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
            let all = i32::from(ETH_P_ALL.to_be());
            let raw = sys::sock::socket(libc::AF_PACKET, kind, all).unwrap();
            let forced = libc::SO_RCVBUFFORCE;
            sys::sock::set_number(raw.as_fd(), libc::SOL_SOCKET, forced, ROOM_BYTES).unwrap();
            Self(raw)
        })
    }

    /// Segments and ICMP messages that came from a host since the last look, in words.
    pub(super) fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut frame = vec![0; 1 << 17];
        while let Ok((length, Some(from))) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut frame) {
            if from.pkttype() == PACKET_HOST && from.ifindex() != 1 {
                heard.extend(describe(&frame[..length]));
            }
        }
        heard
    }
}

const ETHERNET_BYTES: usize = 14;

fn describe(frame: &[u8]) -> Option<String> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    let (protocol, body) = match packet.first()? >> 4 {
        4 => (packet[9], &packet[usize::from(packet[0] & 15) * 4..]),
        6 => (packet[6], &packet[40..]),
        _ => return None,
    };
    match i32::from(protocol) {
        libc::IPPROTO_TCP => Some(segment(body)),
        libc::IPPROTO_ICMP => Some(format!("ICMP {}", body[0])),
        // Neighbour discovery and group membership are not about anybody's connection.
        libc::IPPROTO_ICMPV6 if body[0] < 128 => Some(format!("ICMPv6 {}", body[0])),
        _ => None,
    }
}

fn segment(body: &[u8]) -> String {
    let names = [(1, "FIN"), (2, "SYN"), (4, "RST"), (8, "PSH"), (16, "ACK")];
    let flags = names.iter().filter(|(bit, _)| body[13] & bit != 0).map(|(_, name)| *name);
    let port = u16::from_be_bytes([body[0], body[1]]);
    let bytes = body.len() - usize::from(body[12] >> 4) * 4;
    format!("{} of {bytes} bytes from port {port}", flags.collect::<Vec<_>>().join(" "))
}
