//! Streams of bytes: what the heads mean, and the bulk streams that carry pages.
//!
//! QUIC tells the peer of a stream only with its first bytes. So every stream begins with a head of
//! four bytes: its kind, a zero, and an index the opener chose (little endian).

use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};

use crate::LinkError;
use crate::error::Doing;

/// A stream whose sender was dropped before `finish`: the peer must not take it for complete.
const UNFINISHED: VarInt = VarInt::from_u32(2);

const HEAD_BYTES: usize = 4;

/// What a stream is for; the first byte of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The destination lets the source in; nothing follows.
    Welcome = b'W' as isize,
    /// Frames, both ways.
    Control = b'C' as isize,
    /// Bytes, one way.
    Bulk = b'B' as isize,
}

fn head(kind: Kind, index: u16) -> [u8; HEAD_BYTES] {
    let [low, high] = index.to_le_bytes();
    [kind as u8, 0, low, high]
}

fn index_of(head: [u8; HEAD_BYTES], kind: Kind) -> Option<u16> {
    let [found, zero, low, high] = head;
    (found == kind as u8 && zero == 0).then_some(u16::from_le_bytes([low, high]))
}

/// The sending half of a stream; abandons it if dropped before it is finished.
///
/// quinn would finish it, and half of what was meant would look like all of it.
#[derive(Debug)]
pub(crate) struct Sending {
    stream: SendStream,
    pub(crate) doing: Doing,
    finished: bool,
}

impl Sending {
    pub(crate) async fn begin(
        stream: SendStream,
        doing: Doing,
        kind: Kind,
        index: u16,
    ) -> Result<Self, LinkError> {
        let mut sending = Self { stream, doing, finished: false };
        let head = head(kind, index);
        sending.stream.write_all(&head).await.map_err(|e| doing.write_failed(e))?;
        Ok(sending)
    }

    /// Takes what fits into the windows off the front of `chunks`, and waits until something does.
    /// Cancelling it loses nothing: what was sent is gone from `chunks`, the rest is there.
    pub(crate) async fn write(&mut self, mut chunks: &mut [Bytes]) -> Result<(), LinkError> {
        while !chunks.is_empty() {
            let written = self.stream.write_chunks(chunks).await;
            let whole = written.map_err(|e| self.doing.write_failed(e))?.chunks;
            chunks = &mut chunks[whole..];
        }
        Ok(())
    }

    pub(crate) fn set_priority(&self, priority: i32) -> Result<(), LinkError> {
        self.stream.set_priority(priority).map_err(|_| self.doing.closed_here())
    }

    /// Ends the stream and waits until the peer's side of the link has all of it.
    pub(crate) async fn finish(mut self) -> Result<(), LinkError> {
        self.stream.finish().map_err(|_| self.doing.closed_here())?;
        self.finished = true;
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(self.doing.abandoned(code)),
            Err(quinn::StoppedError::ConnectionLost(source)) => Err(self.doing.lost(source)),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(self.doing.closed_here()),
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.finished {
            // Fails only where the peer has stopped it already, which says the same.
            let _already_stopped = self.stream.reset(UNFINISHED);
        }
    }
}

/// Reads the head of a stream that must be of `kind`; returns its index.
pub(crate) async fn begin_reading(
    stream: &mut RecvStream,
    doing: Doing,
    kind: Kind,
) -> Result<u16, LinkError> {
    let mut head = [0; HEAD_BYTES];
    match stream.read_exact(&mut head).await {
        Ok(()) => index_of(head, kind).ok_or(LinkError::BadHead {
            action: doing.action,
            address: doing.address,
            head,
        }),
        Err(quinn::ReadExactError::FinishedEarly(_)) => Err(doing.cut_short()),
        Err(quinn::ReadExactError::ReadError(error)) => Err(doing.read_failed(error)),
    }
}

/// The sending end of a bulk stream. Dropped before [`Self::finish`], the peer sees it abandoned.
#[derive(Debug)]
pub struct BulkSender {
    sending: Sending,
}

impl BulkSender {
    pub(crate) async fn open(
        quic: &Connection,
        doing: Doing,
        index: u16,
    ) -> Result<Self, LinkError> {
        let stream = quic.open_uni().await.map_err(|e| doing.lost(e))?;
        let doing = Doing { action: "send pages", ..doing };
        let sending = Sending::begin(stream, doing, Kind::Bulk, index).await?;
        Ok(Self { sending })
    }

    /// Sends `chunks` in order, without copying them; waits at most `wait` for room in the windows.
    ///
    /// After [`LinkError::TimedOut`] the unsent rest stands in `chunks`; calling again goes on.
    pub async fn write(&mut self, chunks: &mut [Bytes], wait: Duration) -> Result<(), LinkError> {
        self.sending.doing.within(wait, self.sending.write(chunks)).await
    }

    /// Streams of a higher priority are sent first; 0 is where they begin. What is already on the
    /// wire is not overtaken: pages that somebody waits for want a connection of their own.
    pub fn set_priority(&self, priority: i32) -> Result<(), LinkError> {
        self.sending.set_priority(priority)
    }

    /// Ends the stream and waits until all of it has arrived. Arrived is not stored: only the
    /// peer's answer says that.
    pub async fn finish(self, wait: Duration) -> Result<(), LinkError> {
        self.sending.doing.within(wait, self.sending.finish()).await
    }
}

/// The receiving end of a bulk stream. Who does not read makes the sender wait.
#[derive(Debug)]
pub struct BulkReceiver {
    stream: RecvStream,
    doing: Doing,
    index: u16,
}

impl BulkReceiver {
    pub(crate) async fn accept(quic: &Connection, doing: Doing) -> Result<Self, LinkError> {
        let mut stream = quic.accept_uni().await.map_err(|e| doing.lost(e))?;
        let index = begin_reading(&mut stream, doing, Kind::Bulk).await?;
        Ok(Self { stream, doing: Doing { action: "receive pages", ..doing }, index })
    }

    /// The index that the sender gave to `open_bulk`.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The next 1 to `bytes_max` bytes, or `None` where the sender finished. Cancelling loses nothing.
    pub async fn read(
        &mut self,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Option<Bytes>, LinkError> {
        let doing = self.doing;
        let read = async {
            let chunk = self.stream.read_chunk(bytes_max, true).await;
            Ok(chunk.map_err(|e| doing.read_failed(e))?.map(|chunk| chunk.bytes))
        };
        doing.within(wait, read).await
    }

    /// As many next pieces as have arrived, at least one, into `chunks`; returns how many, or `None`
    /// where the sender finished. One packet is one piece, so this saves a wake-up for each.
    pub async fn read_many(
        &mut self,
        chunks: &mut [Bytes],
        wait: Duration,
    ) -> Result<Option<usize>, LinkError> {
        let doing = self.doing;
        let read =
            async { self.stream.read_chunks(chunks).await.map_err(|e| doing.read_failed(e)) };
        doing.within(wait, read).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heads_bytes_never_change() {
        assert_eq!(head(Kind::Welcome, 0), [0x57, 0, 0, 0]);
        assert_eq!(head(Kind::Control, 1), [0x43, 0, 1, 0]);
        assert_eq!(head(Kind::Bulk, 0x1234), [0x42, 0, 0x34, 0x12]);
    }

    #[test]
    fn a_head_of_another_kind_or_with_unknown_bits_is_refused() {
        assert_eq!(index_of(head(Kind::Bulk, 7), Kind::Bulk), Some(7));
        assert_eq!(index_of(head(Kind::Bulk, 7), Kind::Control), None);
        assert_eq!(index_of([0x42, 1, 7, 0], Kind::Bulk), None);
    }
}
