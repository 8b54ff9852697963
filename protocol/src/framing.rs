//! Frames: four bytes of length, little-endian, and one message.
//!
//! The decoder is fed whatever pieces the network delivers. A length beyond the limit is refused as
//! soon as it is read; what is held never exceeds one frame and what was pushed.

use crate::limits::FRAME_BYTES_MAX;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;

const LENGTH_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {length} bytes is longer than the {max} that are allowed")]
    TooLong { length: usize, max: usize },
    #[error("a frame is not the message that belongs here")]
    Malformed(#[from] prost::DecodeError),
}

/// Appends the message as one frame of the control stream.
pub fn encode(message: &impl Message, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let length = message.encoded_len();
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { length, max: FRAME_BYTES_MAX });
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded by FRAME_BYTES_MAX just above")]
    out.put_u32_le(length as u32);
    message.encode_raw(out);
    Ok(())
}

#[derive(Debug)]
pub struct Decoder {
    pending: BytesMut,
    frame_bytes_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// For the control stream and for stream heads.
    pub fn new() -> Self {
        Self::limited(FRAME_BYTES_MAX)
    }

    /// For streams whose frames are all short.
    pub fn limited(frame_bytes_max: usize) -> Self {
        Self { pending: BytesMut::new(), frame_bytes_max: frame_bytes_max.min(FRAME_BYTES_MAX) }
    }

    /// Takes what arrived. Call `next_frame` until it has nothing more, then push again.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more was pushed. An error is final: the stream has lost
    /// its frame boundaries and must be closed.
    pub fn next_frame<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(prefix) = self.pending.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > self.frame_bytes_max {
            return Err(FrameError::TooLong { length, max: self.frame_bytes_max });
        }
        if self.pending.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.pending.advance(LENGTH_BYTES);
        let frame = self.pending.split_to(length).freeze();
        Ok(Some(M::decode(frame)?))
    }

    /// Up to `bytes_max` of what came after the last frame, for the stretches of a stream that
    /// are not framed: the page records behind a `StreamHead` or a `PageReply`.
    pub fn take_unframed(&mut self, bytes_max: usize) -> Bytes {
        self.pending.split_to(bytes_max.min(self.pending.len())).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Inquire, MigrationId, More};

    fn inquire(low: u64) -> Inquire {
        Inquire { migration: MigrationId { high: 7, low } }
    }

    #[test]
    fn frames_come_out_whole_whatever_the_pieces() {
        let mut wire = Vec::new();
        (0..5).for_each(|n| encode(&inquire(n), &mut wire).unwrap());
        for piece in 1..wire.len() {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for bytes in wire.chunks(piece) {
                decoder.push(bytes);
                while let Some(message) = decoder.next_frame::<Inquire>().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, (0..5).map(inquire).collect::<Vec<_>>(), "pieces of {piece}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
        let mut decoder = Decoder::limited(100);
        decoder.push(&101_u32.to_le_bytes());
        assert_eq!(
            decoder.next_frame::<Inquire>(),
            Err(FrameError::TooLong { length: 101, max: 100 })
        );
    }

    #[test]
    fn nothing_too_long_is_ever_written() {
        let part = vec![0; FRAME_BYTES_MAX].into();
        let mut out = Vec::new();
        let refused = encode(&More { part, more: false }, &mut out);
        assert!(matches!(refused, Err(FrameError::TooLong { .. })));
        assert!(out.is_empty());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut decoder = Decoder::new();
        decoder.push(&[3, 0, 0, 0, 0xff, 0xff, 0xff]);
        assert!(matches!(decoder.next_frame::<Inquire>(), Err(FrameError::Malformed(_))));
    }

    #[test]
    fn frames_may_have_unframed_bytes_between_them() {
        let mut wire = Vec::new();
        encode(&inquire(1), &mut wire).unwrap();
        wire.extend_from_slice(b"records");
        encode(&inquire(2), &mut wire).unwrap();
        let mut decoder = Decoder::new();
        decoder.push(&wire);
        assert_eq!(decoder.next_frame::<Inquire>(), Ok(Some(inquire(1))));
        assert_eq!(&decoder.take_unframed(7)[..], b"records");
        assert_eq!(decoder.next_frame::<Inquire>(), Ok(Some(inquire(2))));
        assert!(decoder.take_unframed(7).is_empty());
    }
}
