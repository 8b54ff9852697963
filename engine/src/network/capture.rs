//! What passes the devices of a host, seen by a test.

use crate::sys;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Every frame that any device of the calling thread's namespace sends or receives, from now on.
pub(super) struct Capture(OwnedFd);

/// A TCP segment that was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) flags: u8,
}

impl Capture {
    pub(super) fn new() -> Self {
        let all = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        let socket = sys::sock::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(all)).unwrap();
        Self(socket)
    }

    /// The frames since the last call.
    pub(super) fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut room = vec![0; 70_000];
        while let Ok(length) = recv(self.0.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT) {
            frames.push(room[..length].to_vec());
        }
        frames
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        self.frames().iter().filter_map(|frame| segment(frame)).collect()
    }
}

/// What an IP packet carries: its protocol and content. Headers of IPv6 that extend it are no part
/// of any test.
pub(super) fn payload(frame: &[u8]) -> Option<(u8, &[u8])> {
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let length = usize::from(frame.get(14)? & 0xf) * 4;
            Some((*frame.get(23)?, frame.get(14 + length..)?))
        }
        [0x86, 0xdd] => Some((*frame.get(20)?, frame.get(54..)?)),
        _ => None,
    }
}

fn segment(frame: &[u8]) -> Option<Segment> {
    let (protocol, tcp) = payload(frame)?;
    let half = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let tcp_only = i32::from(protocol) == libc::IPPROTO_TCP;
    let read = Segment { from: half(0)?, to: half(2)?, flags: *tcp.get(13)? };
    tcp_only.then_some(read)
}
