//! How copies of a tree are started on another host, on a stream of their own.
//!
//! The original goes on where it is, so no right to run changes hands, and there is no machine for
//! this: either side ends the conversation whenever it likes, by ending the connection, and no copy
//! begins without the source's word.
//!
//! ```text
//!  source                                                       destination
//!  ──────                                                       ───────────
//!  the Hellos of a move, on a control stream
//!  Offer; Part …: the inventory ───────────────────────────────▶ judges it where copies would be
//!                ◀───────────────── Refuse (every blocker here), or Accept
//!  dumps the tree, which goes on
//!  Image; Part …: its files ═══════════════════════════════════▶   into a directory
//!              ┌ ◀──────────────────────────────────────── Ready one step from running
//!              │ Start ────────────────────────────────────────▶
//!              └ ◀───────────────────────────────────────── Runs for each copy
//!                ◀──────────────────────────── Refuse or Failed  ends it at any time
//! ```
//!
//! Frames as on the control stream ([`framing`]). Tags are for ever: `tests/golden.rs` has them.

use crate::failure::Failure;
use crate::framing::{self, FrameError};
use crate::limits::{
    CAUSES_MAX, COPIES_MAX, IMAGE_PART_BYTES_MAX, INVENTORY_BYTES_MAX, PART_BYTES_MAX, REFUSALS_MAX,
};
use crate::message::Refuse;
use bytes::Bytes;

/// The first version of the conversation in which there are copies.
pub const SINCE: u32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    #[prost(oneof = "Message", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub message: Option<Message>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Message {
    #[prost(message, tag = "1")]
    Offer(Offer),
    #[prost(message, tag = "2")]
    Part(Part),
    #[prost(message, tag = "3")]
    Refuse(Refuse),
    #[prost(message, tag = "4")]
    Accept(Accept),
    #[prost(message, tag = "5")]
    Image(Image),
    #[prost(message, tag = "6")]
    Ready(Ready),
    #[prost(message, tag = "7")]
    Start(Start),
    #[prost(message, tag = "8")]
    Runs(Runs),
    #[prost(message, tag = "9")]
    Failed(Failure),
}

/// A tree that is to be copied. So many bytes of its inventory follow.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Offer {
    #[prost(uint32, tag = "1")]
    pub count: u32,
    /// Each copy in a network namespace of its own, with nothing but a loopback.
    #[prost(bool, tag = "2")]
    pub network_namespace: bool,
    /// Of one copy.
    #[prost(uint64, tag = "3")]
    pub memory_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub inventory_bytes: u64,
}

/// The next bytes of what was announced.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Part {
    #[prost(bytes = "bytes", tag = "1")]
    pub bytes: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Accept {}

/// How long the files of an image are. They follow in this order, one right after the other.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Image {
    #[prost(uint64, tag = "1")]
    pub pages_bytes: u64,
    #[prost(uint64, tag = "2")]
    pub index_bytes: u64,
    #[prost(uint64, tag = "3")]
    pub tree_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub manifest_bytes: u64,
}

/// The next copy is complete, stopped, one step from running.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ready {}

/// It may run.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Start {}

/// It runs.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Runs {
    /// Of its first process, as the destination has it.
    #[prost(int32, tag = "1")]
    pub pid: i32,
    /// That it has yet to read from the image.
    #[prost(uint64, tag = "2")]
    pub missing_pages: u64,
    /// From when the destination began with it, in nanoseconds, without the wait for `Start`.
    #[prost(uint64, tag = "3")]
    pub started_after_ns: u64,
}

/// What a peer said makes no sense, whenever it is said.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CopiesError {
    #[error("read a message about copies")]
    Frame(#[from] FrameError),
    #[error("a message about copies is of a kind that this version does not know")]
    Unknown,
    #[error("{0} says something impossible")]
    Impossible(&'static str),
}

/// Appends the message as a frame.
pub fn encode(message: Message, out: &mut Vec<u8>) -> Result<(), FrameError> {
    framing::encode(&Envelope { message: Some(message) }, out)
}

/// The next whole message of a stream; `None` until more was pushed. An error is final.
pub fn next_message(frames: &mut framing::Decoder) -> Result<Option<Message>, CopiesError> {
    let Some(envelope) = frames.next_frame::<Envelope>()? else { return Ok(None) };
    let message = envelope.message.ok_or(CopiesError::Unknown)?;
    if message.is_possible() { Ok(Some(message)) } else { Err(impossible(&message)) }
}

fn impossible(message: &Message) -> CopiesError {
    CopiesError::Impossible(message.name())
}

impl Message {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offer(_) => "Offer",
            Self::Part(_) => "Part",
            Self::Refuse(_) => "Refuse",
            Self::Accept(_) => "Accept",
            Self::Image(_) => "Image",
            Self::Ready(_) => "Ready",
            Self::Start(_) => "Start",
            Self::Runs(_) => "Runs",
            Self::Failed(_) => "Failed",
        }
    }

    fn is_possible(&self) -> bool {
        match self {
            Self::Offer(m) => {
                (1..=COPIES_MAX).contains(&m.count)
                    && (1..=INVENTORY_BYTES_MAX as u64).contains(&m.inventory_bytes)
            }
            // One of nothing could be repeated for ever.
            Self::Part(m) => (1..=PART_BYTES_MAX).contains(&m.bytes.len()),
            Self::Refuse(m) => (1..=REFUSALS_MAX).contains(&m.refusals.len()),
            Self::Image(m) => m.is_bounded(),
            Self::Runs(m) => m.pid > 0,
            Self::Failed(m) => m.chain.len() <= CAUSES_MAX,
            Self::Accept(_) | Self::Ready(_) | Self::Start(_) => true,
        }
    }
}

impl Image {
    fn is_bounded(&self) -> bool {
        [self.index_bytes, self.tree_bytes, self.manifest_bytes]
            .into_iter()
            .all(|bytes| bytes <= IMAGE_PART_BYTES_MAX)
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        [self.index_bytes, self.tree_bytes, self.manifest_bytes]
            .into_iter()
            .fold(self.pages_bytes, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: Message) -> Result<Option<Message>, CopiesError> {
        let mut wire = Vec::new();
        encode(message, &mut wire).unwrap();
        let mut frames = framing::Decoder::new();
        frames.push(&wire);
        next_message(&mut frames)
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let offer =
            Offer { count: 3, network_namespace: true, memory_bytes: 1 << 40, inventory_bytes: 9 };
        let part = Part { bytes: vec![7; PART_BYTES_MAX].into() };
        for message in [Message::Offer(offer), Message::Part(part), Message::Start(Start {})] {
            assert_eq!(read(message.clone()), Ok(Some(message)));
        }
    }

    #[test]
    fn what_is_impossible_is_refused_by_its_name() {
        let offer =
            Offer { count: 1, network_namespace: false, memory_bytes: 0, inventory_bytes: 1 };
        let image = Image { tree_bytes: IMAGE_PART_BYTES_MAX + 1, ..Image::default() };
        for message in [
            Message::Offer(Offer { count: 0, ..offer }),
            Message::Offer(Offer { count: COPIES_MAX + 1, ..offer }),
            Message::Offer(Offer { inventory_bytes: 0, ..offer }),
            Message::Offer(Offer { inventory_bytes: u64::MAX, ..offer }),
            Message::Part(Part::default()),
            Message::Part(Part { bytes: vec![0; PART_BYTES_MAX + 1].into() }),
            Message::Refuse(Refuse::default()),
            Message::Image(image),
            Message::Runs(Runs::default()),
        ] {
            let name = message.name();
            assert_eq!(read(message), Err(CopiesError::Impossible(name)));
        }
    }

    #[test]
    fn a_message_of_a_later_version_is_not_mistaken_for_another() {
        let mut frames = framing::Decoder::new();
        // Tag 1000, an empty message.
        frames.push(&[3, 0, 0, 0, 0xc2, 0x3e, 0]);
        assert_eq!(next_message(&mut frames), Err(CopiesError::Unknown));
    }

    #[test]
    fn the_length_of_an_image_does_not_wrap_around() {
        let image = Image { pages_bytes: u64::MAX, index_bytes: 5, ..Image::default() };
        assert_eq!(image.bytes(), u64::MAX);
    }
}
