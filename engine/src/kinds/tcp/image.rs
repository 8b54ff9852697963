//! What a connection is on its way.

use super::repair::{Agreement, Window};
use crate::kinds::address::Address;
use crate::kinds::options::Options;

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::kinds) struct Image {
    #[prost(int32, tag = "1")]
    pub(super) domain: i32,
    /// It was over before the move, and the program may know already.
    #[prost(bool, tag = "2")]
    pub(super) was_over: bool,
    /// It goes on.
    #[prost(message, optional, tag = "3")]
    pub(super) live: Option<Live>,
    /// Of one that is over: what was received and nobody has read.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) unread: Vec<u8>,
}

impl Image {
    /// Its ends and its state, for people.
    pub(super) fn described(&self) -> String {
        match &self.live {
            Some(live) => live.described(),
            None if self.was_over => "over".to_owned(),
            None => "will be reset".to_owned(),
        }
    }
}

impl Live {
    fn described(&self) -> String {
        let peer = if self.opened.is_none() { &self.later.opens_to } else { &self.peer };
        let peer = if peer.is_empty() { &self.peer } else { peer };
        format!("{} to {}, {}", Address(&self.local), Address(peer), self.state())
    }

    fn state(&self) -> &'static str {
        let Some(opened) = &self.opened else { return "being opened" };
        match (opened.we_finished, self.later.peer_finished) {
            (false, false) => "established",
            (true, false) => "finished by this end",
            (false, true) => "finished by the peer",
            (true, true) => "finished by both ends",
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Live {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) local: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) peer: Vec<u8>,
    #[prost(message, required, tag = "3")]
    pub(super) options: Options,
    #[prost(message, required, tag = "4")]
    pub(super) buffers: Buffers,
    #[prost(message, required, tag = "5")]
    pub(super) later: Later,
    /// The sequence number with which our next byte is written.
    #[prost(uint32, tag = "6")]
    pub(super) next: u32,
    /// `None` while it is being opened: nothing is agreed upon yet.
    #[prost(message, optional, tag = "7")]
    pub(super) opened: Option<Opened>,
}

/// What a connection has when it was opened. The ends of the streams, which count as a byte, are in
/// none of the numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Opened {
    #[prost(message, required, tag = "1")]
    pub(super) agreement: Agreement,
    #[prost(message, required, tag = "2")]
    pub(super) window: Window,
    /// The sequence number that is expected from the peer.
    #[prost(uint32, tag = "3")]
    pub(super) expected: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) received: Vec<u8>,
    /// Sent, and not acknowledged.
    #[prost(bytes = "vec", tag = "5")]
    pub(super) sent: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub(super) unsent: Vec<u8>,
    /// Nothing more will be written. The peer is told again, also where it knows: it answers, and
    /// the connection is where it was.
    #[prost(bool, tag = "7")]
    pub(super) we_finished: bool,
    /// TCP_WINDOW_CLAMP: the kernel moves it as it tunes the buffer.
    #[prost(uint32, tag = "8")]
    pub(super) window_bytes_max: u32,
}

/// The sizes of the buffers, as the kernel shows them: the double of what it was told.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Buffers {
    /// `None`: what any socket has here.
    #[prost(int32, optional, tag = "1")]
    pub(super) send: Option<i32>,
    #[prost(int32, optional, tag = "2")]
    pub(super) receive: Option<i32>,
    /// SO_BUF_LOCK: which of them the kernel leaves alone, 1 for the one to send from, 2 for the other.
    #[prost(int32, tag = "3")]
    pub(super) locked: i32,
}

/// What is done when its address is here. Until then it stands in the socket itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Later {
    #[prost(bool, tag = "1")]
    pub(super) transparent: bool,
    #[prost(bool, tag = "2")]
    pub(super) free_bind: bool,
    /// SO_REUSEADDR
    #[prost(bool, tag = "3")]
    pub(super) shares_address: bool,
    #[prost(message, required, tag = "4")]
    pub(super) timeouts: Timeouts,
    /// The peer will write nothing more: its last word has to be said again here.
    #[prost(bool, tag = "5")]
    pub(super) peer_finished: bool,
    /// Its address, while the connection is being opened.
    #[prost(bytes = "vec", tag = "6")]
    pub(super) opens_to: Vec<u8>,
    /// We finished after the peer: to be said behind its last word, or both would seem to have finished
    /// at once.
    #[prost(bool, tag = "7")]
    pub(super) answers_the_end: bool,
}

/// What ends a connection by itself when nobody answers.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Timeouts {
    /// SO_KEEPALIVE
    #[prost(bool, tag = "1")]
    pub(super) asks: bool,
    /// TCP_USER_TIMEOUT; 0 for the kernel's own.
    #[prost(uint32, tag = "2")]
    pub(super) unanswered_ms_max: u32,
}
