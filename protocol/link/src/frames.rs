//! Frames on a control stream: a length of four bytes, little endian, and that many bytes.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};

use crate::LinkError;
use crate::error::Doing;
use crate::streams::{Kind, Sending, begin_reading};

const LENGTH_BYTES: usize = 4;

/// A control stream, split into its two directions so that each can have a task of its own.
#[derive(Debug)]
pub struct Control {
    /// The index that the opener gave to `open_control`.
    pub index: u16,
    /// Our frames.
    pub sender: FrameSender,
    /// The peer's frames.
    pub receiver: FrameReceiver,
}

impl Control {
    pub(crate) async fn open(
        quic: &Connection,
        doing: Doing,
        index: u16,
        bytes_max: usize,
    ) -> Result<Self, LinkError> {
        let (sending, mut receiving) = quic.open_bi().await.map_err(|e| doing.lost(e))?;
        let sender = FrameSender::begin(sending, doing, index, bytes_max).await?;
        // The accepting side names the stream too, so that both directions begin alike.
        begin_reading(&mut receiving, doing, Kind::Control).await?;
        Ok(Self { index, sender, receiver: FrameReceiver::new(receiving, doing, bytes_max) })
    }

    pub(crate) async fn accept(
        quic: &Connection,
        doing: Doing,
        bytes_max: usize,
    ) -> Result<Self, LinkError> {
        let (sending, mut receiving) = quic.accept_bi().await.map_err(|e| doing.lost(e))?;
        let index = begin_reading(&mut receiving, doing, Kind::Control).await?;
        let sender = FrameSender::begin(sending, doing, index, bytes_max).await?;
        Ok(Self { index, sender, receiver: FrameReceiver::new(receiving, doing, bytes_max) })
    }
}

/// Sends frames. Dropped before [`Self::finish`], the peer sees the stream abandoned, and frames that
/// are still under way are lost with it: who has said the last word must finish.
#[derive(Debug)]
pub struct FrameSender {
    sending: Sending,
    bytes_max: usize,
    /// Length and content of the frame under way; empty `Bytes` once they are sent.
    pending: [Bytes; 2],
}

impl FrameSender {
    async fn begin(
        stream: SendStream,
        doing: Doing,
        index: u16,
        bytes_max: usize,
    ) -> Result<Self, LinkError> {
        let sending = Sending::begin(stream, doing, Kind::Control, index).await?;
        let mut sender = Self { sending, bytes_max, pending: [Bytes::new(), Bytes::new()] };
        sender.sending.doing.action = "send a message";
        Ok(sender)
    }

    /// Sends one frame; waits at most `wait` for room in the windows.
    ///
    /// Cancelled or timed out, the frame stays whole: the next call sends its rest first.
    pub async fn send(&mut self, frame: Bytes, wait: Duration) -> Result<(), LinkError> {
        let length = self.length_of(&frame)?;
        let doing = self.sending.doing;
        doing
            .within(wait, async {
                self.sending.write(&mut self.pending).await?;
                self.pending = [length, frame];
                self.sending.write(&mut self.pending).await
            })
            .await
    }

    fn length_of(&self, frame: &Bytes) -> Result<Bytes, LinkError> {
        let allowed = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= self.bytes_max);
        let length =
            allowed.ok_or(self.sending.doing.frame_too_long(frame.len(), self.bytes_max))?;
        Ok(Bytes::copy_from_slice(&length.to_le_bytes()))
    }

    /// See [`crate::BulkSender::set_priority`].
    pub fn set_priority(&self, priority: i32) -> Result<(), LinkError> {
        self.sending.set_priority(priority)
    }

    /// Ends this direction and waits until all of it has arrived.
    pub async fn finish(mut self, wait: Duration) -> Result<(), LinkError> {
        let doing = self.sending.doing;
        doing
            .within(wait, async {
                self.sending.write(&mut self.pending).await?;
                self.sending.finish().await
            })
            .await
    }
}

/// Receives frames.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    doing: Doing,
    bytes_max: usize,
    arrived: BytesMut,
}

impl FrameReceiver {
    fn new(stream: RecvStream, doing: Doing, bytes_max: usize) -> Self {
        let doing = Doing { action: "receive a message", ..doing };
        Self { stream, doing, bytes_max, arrived: BytesMut::new() }
    }

    /// The next frame, or `None` where the peer finished. Cancelled or timed out, nothing is lost.
    ///
    /// A frame that is longer than agreed is refused as soon as its length is here, before any
    /// memory is given to it.
    pub async fn receive(&mut self, wait: Duration) -> Result<Option<Bytes>, LinkError> {
        self.doing.within(wait, self.next()).await
    }

    async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            // Never more than one frame is buffered here; the rest waits in the peer's window.
            let missing = LENGTH_BYTES + self.bytes_max - self.arrived.len();
            let chunk = self.stream.read_chunk(missing, true).await;
            match chunk.map_err(|e| self.doing.read_failed(e))? {
                Some(chunk) => self.arrived.extend_from_slice(&chunk.bytes),
                None if self.arrived.is_empty() => return Ok(None),
                None => return Err(self.doing.cut_short()),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, LinkError> {
        take_frame(&mut self.arrived, self.bytes_max)
            .map_err(|bytes| self.doing.frame_too_long(bytes, self.bytes_max))
    }
}

/// The first frame of `arrived`, if all of it is there. The error is the length it claims.
fn take_frame(arrived: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, usize> {
    let Some(length) = arrived.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let bytes = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if bytes > bytes_max {
        return Err(bytes);
    }
    if arrived.len() - LENGTH_BYTES < bytes {
        return Ok(None);
    }
    arrived.advance(LENGTH_BYTES);
    Ok(Some(arrived.split_to(bytes).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_whole_or_not_at_all() {
        let all = b"\x03\0\0\0abc\0\0\0\0\x01\0\0\0";
        let mut arrived = BytesMut::new();
        let mut frames = Vec::new();
        for byte in all {
            arrived.extend_from_slice(&[*byte]);
            frames.extend(take_frame(&mut arrived, 3).unwrap());
        }
        assert_eq!(frames, [Bytes::from_static(b"abc"), Bytes::new()]);
        assert_eq!(arrived.len(), LENGTH_BYTES);
    }

    #[test]
    fn a_length_above_the_maximum_is_refused_at_once() {
        assert_eq!(take_frame(&mut BytesMut::from(&b"\xff\xff\xff\xff"[..]), 1 << 20), {
            Err(u32::MAX as usize)
        });
        assert_eq!(take_frame(&mut BytesMut::from(&b"\x04\0\0\0"[..]), 3), Err(4));
    }
}
