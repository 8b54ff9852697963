//! The control stream: whole messages in, frames out, and back.
//!
//! Some messages carry bytes without a natural end (an image, a layout). On the wire their first
//! part stands in the message itself and the rest follows in `More` frames; the machines only ever
//! see whole messages. Each collection has a limit of its own, checked before a part is kept.

use crate::framing::{self, FrameError};
use crate::limits::*;
use crate::message::{Envelope, Message, More, Outcome};
use bytes::{Bytes, BytesMut};

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ControlError {
    #[error("the control stream cannot be read")]
    Frame(#[from] FrameError),
    #[error("a frame carries no message that this version knows")]
    Unknown,
    #[error("{carrier} goes on beyond {max} bytes")]
    TooMuch { carrier: &'static str, max: usize },
    #[error("{0} came where the next part of a message belongs")]
    Interrupted(&'static str),
    #[error("a part came that belongs to no message")]
    Unasked,
    #[error("{0} says something impossible")]
    Impossible(&'static str),
}

/// Appends the message, in as many frames as it takes.
pub fn encode(mut message: Message, out: &mut Vec<u8>) -> Result<(), ControlError> {
    let carrier = message.name();
    let mut rest = Bytes::new();
    if let Some((bytes, more, max)) = message.carried() {
        if bytes.len() > max {
            return Err(ControlError::TooMuch { carrier, max });
        }
        rest = bytes.split_off(bytes.len().min(PART_BYTES_MAX));
        *more = !rest.is_empty();
    }
    framing::encode(&Envelope { message: Some(message) }, out)?;
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(PART_BYTES_MAX));
        let more = Message::More(More { part, more: !rest.is_empty() });
        framing::encode(&Envelope { message: Some(more) }, out)?;
    }
    Ok(())
}

/// Reads whole, possible messages out of whatever pieces the network delivers.
#[derive(Debug, Default)]
pub struct Decoder {
    frames: framing::Decoder,
    /// A message of which parts are still to come, and those that came.
    unfinished: Option<(Message, BytesMut)>,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder that goes on where the one of the stream's head has stopped.
    pub fn after(frames: framing::Decoder) -> Self {
        Self { frames, unfinished: None }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// The next whole message; `None` until more was pushed. An error is final.
    pub fn next_message(&mut self) -> Result<Option<Message>, ControlError> {
        while let Some(envelope) = self.frames.next_frame::<Envelope>()? {
            let frame = envelope.message.ok_or(ControlError::Unknown)?;
            if let Some(whole) = self.join(frame)? {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }

    fn join(&mut self, frame: Message) -> Result<Option<Message>, ControlError> {
        let (message, parts, part) = match (self.unfinished.take(), frame) {
            (Some((message, parts)), Message::More(part)) => (message, parts, part),
            (Some(_), other) => return Err(ControlError::Interrupted(other.name())),
            (None, Message::More(_)) => return Err(ControlError::Unasked),
            (None, mut message) => {
                let Some((bytes, more, _)) = message.carried() else {
                    return checked(message).map(Some);
                };
                let part = More { part: std::mem::take(bytes), more: std::mem::take(more) };
                (message, BytesMut::new(), part)
            }
        };
        self.keep(message, parts, part)
    }

    fn keep(
        &mut self,
        mut message: Message,
        mut parts: BytesMut,
        More { part, more }: More,
    ) -> Result<Option<Message>, ControlError> {
        let carrier = message.name();
        let Some((bytes, _, max)) = message.carried() else {
            return Err(ControlError::Unasked);
        };
        if parts.len() + part.len() > max {
            return Err(ControlError::TooMuch { carrier, max });
        }
        if more && part.is_empty() {
            // Otherwise a peer could keep us reading for ever without reaching the limit.
            return Err(ControlError::Impossible(carrier));
        }
        if !more && parts.is_empty() {
            *bytes = part;
            return checked(message).map(Some);
        }
        parts.extend_from_slice(&part);
        if more {
            self.unfinished = Some((message, parts));
            return Ok(None);
        }
        *bytes = parts.freeze();
        checked(message).map(Some)
    }
}

impl Message {
    /// The bytes of unbounded nature in a message, whether more of them follow, and their limit.
    fn carried(&mut self) -> Option<(&mut Bytes, &mut bool, usize)> {
        match self {
            Self::Offer(m) => Some((&mut m.inventory, &mut m.more, INVENTORY_BYTES_MAX)),
            Self::Stage(m) => Some((&mut m.layout, &mut m.more, LAYOUT_BYTES_MAX)),
            Self::RoundBegin(m) => Some((&mut m.layout, &mut m.more, LAYOUT_BYTES_MAX)),
            Self::Image(m) => Some((&mut m.image, &mut m.more, IMAGE_BYTES_MAX)),
            Self::Missing(m) => Some((&mut m.runs, &mut m.more, MISSING_BYTES_MAX)),
            _ => None,
        }
    }

    /// Whether it says something possible. What is possible *now* is the machines' business.
    fn is_possible(&self) -> bool {
        match self {
            Self::Hello(m) => m.is_bounded(),
            Self::Offer(m) => m.migration.is_valid() && crate::Lazy::try_from(m.lazy).is_ok(),
            Self::Refuse(m) => (1..=REFUSALS_MAX).contains(&m.refusals.len()),
            Self::RoundBegin(m) => m.round <= ROUNDS_MAX,
            Self::RoundEnd(m) => m.round <= ROUNDS_MAX,
            Self::RoundStored(m) => m.round <= ROUNDS_MAX,
            Self::Ready(m) => m.timings_ns.len() <= TIMINGS_MAX,
            Self::Handover(m) => m.migration.is_valid(),
            Self::Inquire(m) => m.migration.is_valid(),
            Self::Decided(m) => m.migration.is_valid() && m.outcome() != Outcome::Unknown,
            Self::Abort(m) => m.failure.chain.len() <= CAUSES_MAX,
            _ => true,
        }
    }
}

fn checked(message: Message) -> Result<Message, ControlError> {
    if message.is_possible() { Ok(message) } else { Err(ControlError::Impossible(message.name())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::*;

    fn image(length: usize) -> Message {
        let image = (0..=250).cycle().take(length).collect::<Vec<u8>>().into();
        Message::Image(Image { image, more: false })
    }

    fn read(wire: &[u8]) -> Result<Vec<Message>, ControlError> {
        let mut decoder = Decoder::new();
        let mut messages = Vec::new();
        for piece in wire.chunks(10_000) {
            decoder.push(piece);
            while let Some(message) = decoder.next_message()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    fn written(messages: &[Message]) -> Vec<u8> {
        let mut wire = Vec::new();
        messages.iter().for_each(|message| encode(message.clone(), &mut wire).unwrap());
        wire
    }

    fn raw(messages: &[Message]) -> Vec<u8> {
        let mut wire = Vec::new();
        for message in messages.iter().cloned() {
            framing::encode(&Envelope { message: Some(message) }, &mut wire).unwrap();
        }
        wire
    }

    fn part(length: usize, more: bool) -> Message {
        Message::More(More { part: vec![1; length].into(), more })
    }

    #[test]
    fn bytes_of_any_length_come_back_whole() {
        for length in [0, 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 3 * PART_BYTES_MAX, 5_000_000] {
            let messages = [image(length), Message::Staged(Staged {})];
            assert_eq!(read(&written(&messages)).unwrap(), messages, "{length}");
        }
    }

    #[test]
    fn an_image_beyond_its_limit_is_neither_written_nor_read() {
        let too_much = ControlError::TooMuch { carrier: "Image", max: IMAGE_BYTES_MAX };
        let refused = encode(image(IMAGE_BYTES_MAX + 1), &mut Vec::new());
        assert_eq!(refused, Err(too_much.clone()));

        let first = Message::Image(Image { image: vec![1].into(), more: true });
        let mut wire = raw(&[first]);
        let more = raw(&[part(PART_BYTES_MAX, true)]);
        (0..IMAGE_BYTES_MAX / PART_BYTES_MAX).for_each(|_| wire.extend_from_slice(&more));
        assert_eq!(read(&wire), Err(too_much));
    }

    #[test]
    fn parts_out_of_place_are_refused() {
        let begun = Message::Image(Image { image: vec![1].into(), more: true });
        let staged = Message::Staged(Staged {});
        let cases = [
            (raw(&[part(1, false)]), ControlError::Unasked),
            (raw(&[begun.clone(), staged]), ControlError::Interrupted("Staged")),
            (raw(&[begun.clone(), begun.clone()]), ControlError::Interrupted("Image")),
            (raw(&[begun, part(0, true)]), ControlError::Impossible("Image")),
        ];
        for (wire, error) in cases {
            assert_eq!(read(&wire), Err(error));
        }
    }

    #[test]
    fn what_is_impossible_is_refused_before_a_machine_sees_it() {
        let nobody = MigrationId::default();
        let somebody = MigrationId { high: 0, low: 1 };
        for message in [
            Message::Inquire(Inquire { migration: nobody }),
            Message::Handover(Handover { migration: nobody }),
            Message::Decided(Decided { migration: somebody, outcome: 0, resumed_after_ns: 0 }),
            Message::Decided(Decided { migration: somebody, outcome: 3, resumed_after_ns: 0 }),
            Message::Offer(Offer { migration: somebody, lazy: 9, ..Offer::default() }),
            Message::Refuse(Refuse::default()),
            Message::RoundBegin(RoundBegin { round: ROUNDS_MAX + 1, ..RoundBegin::default() }),
        ] {
            let name = message.name();
            assert_eq!(read(&raw(&[message])), Err(ControlError::Impossible(name)));
        }
    }

    #[test]
    fn a_message_of_a_later_version_is_not_mistaken_for_another() {
        // Tag 1000, an empty message.
        assert_eq!(read(&[3, 0, 0, 0, 0xc2, 0x3e, 0]), Err(ControlError::Unknown));
    }
}
