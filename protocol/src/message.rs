//! What two hosts say to each other on the control stream, and first on every other stream.
//!
//! Tags are for ever: `tests/golden.rs` pins the bytes of each message. A field is added under a
//! new tag and means nothing by default; a field is never renamed in meaning, never reused.
//!
//! Inventories, layouts, images and lists of missing pages are bytes here. Only the engine knows
//! what is in them, and a machine has no business to.

use crate::failure::{Failure, clipped};
use crate::limits::REFUSALS_MAX;
use crate::version::Hello;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;

/// Names one migration for ever: 16 random bytes, never all zero, chosen by the source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct MigrationId {
    #[prost(fixed64, tag = "1")]
    pub high: u64,
    #[prost(fixed64, tag = "2")]
    pub low: u64,
}

/// The control stream's frames.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    #[prost(
        oneof = "Message",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20"
    )]
    pub message: Option<Message>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Message {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Offer(Offer),
    #[prost(message, tag = "3")]
    Accept(Accept),
    #[prost(message, tag = "4")]
    Refuse(Refuse),
    #[prost(message, tag = "5")]
    Stage(Stage),
    #[prost(message, tag = "6")]
    Staged(Staged),
    #[prost(message, tag = "7")]
    RoundBegin(RoundBegin),
    #[prost(message, tag = "8")]
    RoundEnd(RoundEnd),
    #[prost(message, tag = "9")]
    RoundStored(RoundStored),
    #[prost(message, tag = "10")]
    Image(Image),
    #[prost(message, tag = "11")]
    Ready(Ready),
    /// Hands the right to run the tree to the destination.
    #[prost(message, tag = "12")]
    Handover(Handover),
    /// What became of a migration. The destination decides it once, and it never changes.
    #[prost(message, tag = "13")]
    Decided(Decided),
    /// Asks for `Decided` after a link was lost. It may be the first message of a stream, without
    /// a `Hello`: every version answers it.
    #[prost(message, tag = "14")]
    Inquire(Inquire),
    /// What the destination still misses, when the source has come back in the lazy phase.
    #[prost(message, tag = "15")]
    Missing(Missing),
    /// The source has pushed every page it knew of; what is missing now must be asked for.
    #[prost(message, tag = "16")]
    PushDone(PushDone),
    /// The destination has every page and needs the source no more.
    #[prost(message, tag = "17")]
    Complete(Complete),
    /// Nothing of the tree is left on the source.
    #[prost(message, tag = "18")]
    Done(Done),
    /// Before the handover: the sender has given up. After it, an explanation and nothing more:
    /// only `Decided` says who may run the tree.
    #[prost(message, tag = "19")]
    Abort(Abort),
    /// The next part of the bytes in the message before it; see [`crate::control`].
    #[prost(message, tag = "20")]
    More(More),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Lazy {
    /// When pre-copy cannot make the freeze short enough.
    Auto = 0,
    /// Every page.
    Always = 1,
    /// Everything is copied before the handover, however long the freeze.
    Never = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Offer {
    #[prost(message, required, tag = "1")]
    pub migration: MigrationId,
    #[prost(bytes = "bytes", tag = "2")]
    pub inventory: Bytes,
    #[prost(bool, tag = "3")]
    pub more: bool,
    #[prost(uint64, tag = "4")]
    pub memory_bytes: u64,
    #[prost(uint32, tag = "5")]
    pub process_count: u32,
    #[prost(uint32, tag = "6")]
    pub thread_count: u32,
    #[prost(enumeration = "Lazy", tag = "7")]
    pub lazy: i32,
    #[prost(bool, tag = "8")]
    pub compress: bool,
}

/// The clocks of the destination's agent at the moment of accepting, in nanoseconds; see
/// clock_gettime(2). The source makes its tree's clocks go on from them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Accept {
    #[prost(uint64, tag = "1")]
    pub monotonic_ns: u64,
    #[prost(uint64, tag = "2")]
    pub boottime_ns: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Refuse {
    #[prost(message, repeated, tag = "1")]
    pub refusals: Vec<Refusal>,
}

/// One blocker: what cannot be moved, why, and what the operator can do about it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Refusal {
    #[prost(string, tag = "1")]
    pub object: String,
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(string, tag = "3")]
    pub advice: String,
}

/// The offsets are for a time namespace, see time_namespaces(7).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stage {
    #[prost(bytes = "bytes", tag = "1")]
    pub layout: Bytes,
    #[prost(bool, tag = "2")]
    pub more: bool,
    #[prost(sint64, tag = "3")]
    pub monotonic_offset_ns: i64,
    #[prost(sint64, tag = "4")]
    pub boottime_offset_ns: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Staged {}

/// An empty layout means that the one before still holds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RoundBegin {
    #[prost(uint32, tag = "1")]
    pub round: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub layout: Bytes,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// What was sent in a round, over all its streams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct RoundEnd {
    #[prost(uint32, tag = "1")]
    pub round: u32,
    /// Pages that were sent with their bytes.
    #[prost(uint64, tag = "2")]
    pub pages: u64,
    #[prost(uint64, tag = "3")]
    pub zero_pages: u64,
    #[prost(uint64, tag = "4")]
    pub dropped_pages: u64,
    /// Pages of which only the address was sent: their bytes come lazily.
    #[prost(uint64, tag = "5")]
    pub stale_pages: u64,
    #[prost(uint64, tag = "6")]
    pub bytes_raw: u64,
    #[prost(uint64, tag = "7")]
    pub bytes_wire: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RoundStored {
    #[prost(uint32, tag = "1")]
    pub round: u32,
    #[prost(uint64, tag = "2")]
    pub pages: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Image {
    #[prost(bytes = "bytes", tag = "1")]
    pub image: Bytes,
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// How long the steps of building took, in nanoseconds, by name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ready {
    #[prost(btree_map = "string, uint64", tag = "1")]
    pub timings_ns: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Handover {
    #[prost(message, required, tag = "1")]
    pub migration: MigrationId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Outcome {
    /// Never sent. It stands here so that a message without an outcome grants nothing.
    Unknown = 0,
    Running = 1,
    Discarded = 2,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Decided {
    #[prost(message, required, tag = "1")]
    pub migration: MigrationId,
    #[prost(enumeration = "Outcome", tag = "2")]
    pub outcome: i32,
    /// From the receipt of `Handover` until the tree ran, in nanoseconds; 0 when not known.
    #[prost(uint64, tag = "3")]
    pub resumed_after_ns: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Inquire {
    #[prost(message, required, tag = "1")]
    pub migration: MigrationId,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Missing {
    #[prost(bytes = "bytes", tag = "1")]
    pub runs: Bytes,
    #[prost(bool, tag = "2")]
    pub more: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PushDone {}

#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Complete {
    #[prost(uint64, tag = "1")]
    pub faults: u64,
    #[prost(uint64, tag = "2")]
    pub fault_pages: u64,
    #[prost(uint64, tag = "3")]
    pub pushed_pages: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Done {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Abort {
    #[prost(message, required, tag = "1")]
    pub failure: Failure,
    /// From a destination: the tree ran there and is no more, which nothing changes.
    #[prost(bool, tag = "2")]
    pub is_lost: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct More {
    #[prost(bytes = "bytes", tag = "1")]
    pub part: Bytes,
    #[prost(bool, tag = "2")]
    pub more: bool,
}

impl MigrationId {
    /// `None` for sixteen zeros, which are what a message without an id decodes to.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let half = |at: usize| u64::from_be_bytes(std::array::from_fn(|n| bytes[at + n]));
        let id = Self { high: half(0), low: half(8) };
        id.is_valid().then_some(id)
    }

    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }

    pub(crate) fn is_valid(self) -> bool {
        self.high != 0 || self.low != 0
    }
}

/// Thirty-two hexadecimal digits, as in journals and in the names of control groups.
impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

impl std::str::FromStr for MigrationId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let both = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        both.and_then(|both| Self::from_bytes(both.to_be_bytes())).ok_or(NotAnId)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a migration is named by 32 hexadecimal digits, not all zero")]
pub struct NotAnId;

impl Refusal {
    pub fn new(
        object: impl Into<String>,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            object: clipped(object.into()),
            reason: clipped(reason.into()),
            advice: clipped(advice.into()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}. {}", self.object, self.reason, self.advice)
    }
}

impl Refuse {
    /// All of them; when they are more than a message holds, the last one counts the rest.
    pub fn new(mut refusals: Vec<Refusal>) -> Self {
        if refusals.len() > REFUSALS_MAX {
            let left_out = refusals.len() - (REFUSALS_MAX - 1);
            refusals.truncate(REFUSALS_MAX - 1);
            let reason = format!("has {left_out} more objects that cannot be moved");
            refusals.push(Refusal::new("the tree", reason, "Resolve these first and ask again."));
        }
        Self { refusals }
    }
}

impl Decided {
    pub fn new(migration: MigrationId, outcome: Outcome, resumed_after_ns: u64) -> Self {
        Self { migration, outcome: outcome.into(), resumed_after_ns }
    }
}

impl Message {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Offer(_) => "Offer",
            Self::Accept(_) => "Accept",
            Self::Refuse(_) => "Refuse",
            Self::Stage(_) => "Stage",
            Self::Staged(_) => "Staged",
            Self::RoundBegin(_) => "RoundBegin",
            Self::RoundEnd(_) => "RoundEnd",
            Self::RoundStored(_) => "RoundStored",
            Self::Image(_) => "Image",
            Self::Ready(_) => "Ready",
            Self::Handover(_) => "Handover",
            Self::Decided(_) => "Decided",
            Self::Inquire(_) => "Inquire",
            Self::Missing(_) => "Missing",
            Self::PushDone(_) => "PushDone",
            Self::Complete(_) => "Complete",
            Self::Done(_) => "Done",
            Self::Abort(_) => "Abort",
            Self::More(_) => "More",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_after_being_written_and_read() {
        let id = MigrationId::from_bytes(*b"sixteen bytes id").unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(MigrationId::from_bytes(id.to_bytes()), Some(id));
    }

    #[test]
    fn what_is_no_id_is_not_read_as_one() {
        for text in ["", "+1", &"0".repeat(32), &"g".repeat(32), &"1".repeat(33)] {
            assert_eq!(text.parse::<MigrationId>(), Err(NotAnId), "{text:?}");
        }
    }

    #[test]
    fn too_many_refusals_end_with_a_count_of_the_rest() {
        let many = (0..1000).map(|n| Refusal::new(format!("fd {n}"), "", "")).collect();
        let refuse = Refuse::new(many);
        assert_eq!(refuse.refusals.len(), REFUSALS_MAX);
        assert!(refuse.refusals[REFUSALS_MAX - 1].reason.contains("745 more"));
    }
}
