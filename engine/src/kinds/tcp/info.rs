//! What TCP says of a connection: TCP_INFO of tcp(7), `struct tcp_info` of linux/tcp.h.

use crate::sys;
use std::io;
use std::os::fd::BorrowedFd;

/// include/net/tcp_states.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

impl State {
    pub(super) fn of(number: u8) -> Option<Self> {
        let states = [
            Self::Established,
            Self::SynSent,
            Self::SynReceived,
            Self::FinWait1,
            Self::FinWait2,
            Self::TimeWait,
            Self::Close,
            Self::CloseWait,
            Self::LastAck,
            Self::Listen,
            Self::Closing,
        ];
        states.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// In `idiag_states` of linux/inet_diag.h.
    pub(super) fn bit(self) -> u32 {
        1 << (self as u32 + 1)
    }

    /// The end of what we say is in the stream.
    pub(super) fn we_finished(self) -> bool {
        matches!(self, Self::FinWait1 | Self::FinWait2 | Self::Closing | Self::LastAck)
    }

    /// The end of what the peer says was received.
    pub(super) fn peer_finished(self) -> bool {
        matches!(self, Self::CloseWait | Self::LastAck | Self::Closing)
    }

    /// A peer is there to be talked to, or was until one of both finished.
    pub(super) fn is_connected(self) -> bool {
        self == Self::Established
            || self == Self::FinWait1
            || self == Self::FinWait2
            || self.peer_finished()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    pub(super) state: State,
    /// What was agreed upon when it was opened: TCPI_OPT_*.
    pub(super) options: u8,
    pub(super) send_scale: u8,
    pub(super) receive_scale: u8,
    /// Written and never sent.
    pub(super) unsent_bytes: u32,
}

pub(super) const TIMESTAMPS: u8 = 1;
pub(super) const SELECTIVE: u8 = 2;
pub(super) const SCALED: u8 = 4;

/// Up to `tcpi_notsent_bytes` (Linux 4.6).
const BYTES: usize = 148;

impl Info {
    pub(super) fn read(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut room = [0; BYTES];
        let filled = sys::sock::read_option(socket, libc::SOL_TCP, libc::TCP_INFO, &mut room)?;
        let state = State::of(room[0]).filter(|_| filled == BYTES);
        let [.., a, b, c, d] = room;
        Ok(Self {
            state: state.ok_or(io::ErrorKind::InvalidData)?,
            options: room[5],
            send_scale: room[6] & 0xf,
            receive_scale: room[6] >> 4,
            unsent_bytes: u32::from_ne_bytes([a, b, c, d]),
        })
    }
}

pub(super) fn state(socket: BorrowedFd<'_>) -> io::Result<State> {
    let mut first = [0];
    sys::sock::read_option(socket, libc::SOL_TCP, libc::TCP_INFO, &mut first)?;
    State::of(first[0]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
