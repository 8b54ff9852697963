//! What a stream consists of.

use anyhow::{Result, bail};
use std::sync::LazyLock;

/// No power of two and no multiple of a page: bytes that were shifted by a buffer do not fit again.
const PERIOD: usize = 1_048_573;

/// The longest piece that is written or compared at once.
pub(super) const PIECE: usize = 256 * 1024;

/// Made once: it takes longer than a short stream.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let period = (0..PERIOD).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    let mut bytes: Vec<u8> = period.collect();
    // So that no piece has to be put together.
    bytes.extend_from_within(..PIECE);
    bytes
});

/// The stream from a position on.
#[derive(Debug, Default)]
pub struct Pattern {
    position: u64,
}

impl Pattern {
    pub fn new() -> Self {
        Self::default()
    }

    /// How far it has come.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What comes next.
    pub fn next_piece(&self) -> &[u8] {
        self.next(PIECE)
    }

    /// So many bytes of it are sent.
    pub fn advance(&mut self, length: usize) {
        self.position += length as u64;
    }

    /// Compares what has come with what should come next.
    pub fn check(&mut self, found: &[u8]) -> Result<()> {
        for piece in found.chunks(PIECE) {
            let expected = self.next(piece.len());
            if piece != expected {
                let same = piece.iter().zip(expected).take_while(|(a, b)| a == b).count();
                bail!("byte {} of the stream is another one", self.position + same as u64);
            }
            self.advance(piece.len());
        }
        Ok(())
    }

    fn next(&self, length: usize) -> &[u8] {
        #[allow(clippy::cast_possible_truncation, reason = "below the period")]
        let at = (self.position % PERIOD as u64) as usize;
        &BYTES[at..at + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some MiB in pieces of odd lengths.
    fn stream() -> Vec<u8> {
        let mut pattern = Pattern::new();
        let mut stream = Vec::new();
        for length in [1, 4096, PIECE, 70_001].into_iter().cycle().take(20) {
            stream.extend_from_slice(&pattern.next_piece()[..length]);
            pattern.advance(length);
        }
        stream
    }

    #[test]
    fn a_stream_is_recognised_in_whatever_pieces_it_comes() {
        let (stream, mut pattern) = (stream(), Pattern::new());
        assert!(stream.len() > PERIOD);
        stream.chunks(300_007).for_each(|chunk| pattern.check(chunk).unwrap());
        assert_eq!(pattern.position(), stream.len() as u64);
    }

    #[test]
    fn a_lost_byte_and_a_doubled_one_are_named() {
        let complain = |change: fn(&mut Vec<u8>)| {
            let mut stream = stream();
            change(&mut stream);
            Pattern::new().check(&stream).unwrap_err().to_string()
        };
        assert_eq!(complain(|s| drop(s.drain(500_000..501_000))), at(500_000));
        assert_eq!(complain(|s| s.extend_from_within(..4096)), at(stream().len()));
        assert_eq!(complain(|s| s[7] ^= 1), at(7));
    }

    fn at(byte: usize) -> String {
        format!("byte {byte} of the stream is another one")
    }
}
