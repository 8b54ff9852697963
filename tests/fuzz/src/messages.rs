//! Messages that a peer may say: well formed, and with anything in them.

use arbitrary::Arbitrary;
use protocol::message::*;
use protocol::version::{Hello, HostFacts};
use protocol::{Failure, Message, MigrationId, Outcome};

pub const ID: MigrationId = MigrationId { high: 1, low: 2 };
const OTHER: MigrationId = MigrationId { high: 3, low: 4 };

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Said<'a> {
    Hello { min: u32, max: u32 },
    Offer { other: bool, lazy: u8 },
    Accept { ns: u64 },
    Refuse,
    Stage,
    Staged,
    RoundBegin { round: u32 },
    RoundEnd { round: u32 },
    RoundStored { round: u32, pages: u64 },
    Image,
    Ready,
    Handover { other: bool },
    Decided { other: bool, runs: bool },
    Inquire { other: bool },
    Missing,
    PushDone,
    Complete,
    Done,
    Abort,
    /// Whatever a frame can hold.
    Frame(&'a [u8]),
}

pub fn hello() -> Hello {
    let host =
        HostFacts { page_size: 4096, features: vec!["userfaultfd".into()], ..HostFacts::default() };
    Hello { protocol_min: 1, protocol_max: 1, host, ..Hello::default() }
}

pub fn failure() -> Failure {
    Failure::default()
}

fn id(is_other: bool) -> MigrationId {
    if is_other { OTHER } else { ID }
}

impl Said<'_> {
    /// As the machines are given it: whole, and possible.
    pub fn message(self) -> Option<Message> {
        let message = match self {
            Self::Hello { min, max } => {
                Message::Hello(Hello { protocol_min: min % 3, protocol_max: max % 3, ..hello() })
            }
            Self::Offer { other, lazy } => Message::Offer(Offer {
                migration: id(other),
                lazy: i32::from(lazy % 4),
                ..Offer::default()
            }),
            Self::Accept { ns } => Message::Accept(Accept { monotonic_ns: ns, boottime_ns: ns }),
            Self::Refuse => Message::Refuse(Refuse::new(vec![Refusal::new("o", "r", "a")])),
            Self::Stage => Message::Stage(Stage::default()),
            Self::Staged => Message::Staged(Staged {}),
            Self::RoundBegin { round } => {
                Message::RoundBegin(RoundBegin { round: round % 4, ..RoundBegin::default() })
            }
            Self::RoundEnd { round } => {
                Message::RoundEnd(RoundEnd { round: round % 4, ..RoundEnd::default() })
            }
            Self::RoundStored { round, pages } => {
                Message::RoundStored(RoundStored { round: round % 4, pages })
            }
            Self::Image => Message::Image(Image::default()),
            Self::Ready => Message::Ready(Ready::default()),
            Self::Handover { other } => Message::Handover(Handover { migration: id(other) }),
            Self::Decided { other, runs } => {
                let outcome = if runs { Outcome::Running } else { Outcome::Discarded };
                Message::Decided(Decided::new(id(other), outcome, 1))
            }
            Self::Inquire { other } => Message::Inquire(Inquire { migration: id(other) }),
            Self::Missing => Message::Missing(Missing::default()),
            Self::PushDone => Message::PushDone(PushDone {}),
            Self::Complete => Message::Complete(Complete::default()),
            Self::Done => Message::Done(Done {}),
            Self::Abort => Message::Abort(Abort { failure: failure(), is_lost: true }),
            Self::Frame(bytes) => return from_frame(bytes),
        };
        Some(message)
    }
}

fn from_frame(bytes: &[u8]) -> Option<Message> {
    let mut decoder = protocol::control::Decoder::new();
    decoder.push(bytes);
    decoder.next_message().ok().flatten()
}
