//! Whether pages travel compressed: only where the link is slower than the compressor.
//!
//! Found out by watching the sender. One that mostly waits for room is limited by the link, and
//! zstd then turns waiting into fewer bytes. A sender that compresses and never waits is limited
//! by its own processor, and goes back to plain for good.

use protocol::pages::Codec;
use std::time::{Duration, Instant};

/// What one core compresses at level 1; a faster link is never waited for with zstd.
pub(crate) const COMPRESSOR_BYTES_PER_S: u64 = 400_000_000;

/// A judgement takes this much: the buffers between us and the wire hold more, so the first ones
/// see no wait at all and change nothing.
const WINDOW_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compress {
    /// As measured while copying.
    Auto,
    Zstd,
    None,
}

#[derive(Debug)]
pub(crate) struct CodecChoice {
    choice: Compress,
    codec: Codec,
    zstd_was_too_slow: bool,
    bytes: u64,
    waited: Duration,
    since: Instant,
}

impl CodecChoice {
    pub(crate) fn new(choice: Compress, link_is_slow: bool) -> Self {
        let zstd = choice == Compress::Zstd || (choice == Compress::Auto && link_is_slow);
        let codec = if zstd { Codec::Zstd } else { Codec::Plain };
        let since = Instant::now();
        Self { choice, codec, zstd_was_too_slow: false, bytes: 0, waited: Duration::ZERO, since }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// Between rounds nothing is sent; that time says nothing.
    pub(crate) fn start_anew(&mut self) {
        (self.bytes, self.waited, self.since) = (0, Duration::ZERO, Instant::now());
    }

    /// Takes in that so many bytes were handed over after such a wait. Tells the codec when it
    /// changes.
    pub(crate) fn note(&mut self, bytes: usize, waited: Duration) -> Option<Codec> {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.choice != Compress::Auto || self.bytes < WINDOW_BYTES {
            return None;
        }
        let next = self.judge(self.since.elapsed());
        self.start_anew();
        (next != self.codec).then(|| {
            self.codec = next;
            next
        })
    }

    fn judge(&mut self, elapsed: Duration) -> Codec {
        let is_slow = u128::from(self.bytes) * 1_000_000_000
            < u128::from(COMPRESSOR_BYTES_PER_S) * elapsed.as_nanos();
        match self.codec {
            Codec::Plain if self.waited * 2 > elapsed && is_slow && !self.zstd_was_too_slow => {
                Codec::Zstd
            }
            Codec::Zstd if self.waited * 20 < elapsed => {
                self.zstd_was_too_slow = true;
                Codec::Plain
            }
            codec => codec,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(choice: &mut CodecChoice, waited_percent: u32) -> Option<Codec> {
        choice.since = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        choice.note(1 << 24, Duration::from_millis(10) * waited_percent)
    }

    #[test]
    fn a_slow_link_is_compressed_for() {
        let mut choice = CodecChoice::new(Compress::Auto, false);
        assert_eq!(after(&mut choice, 10), None);
        assert_eq!(after(&mut choice, 90), Some(Codec::Zstd));
        assert_eq!(after(&mut choice, 90), None);
    }

    #[test]
    fn a_compressor_that_is_slower_than_the_link_is_left_out_for_good() {
        let mut choice = CodecChoice::new(Compress::Auto, true);
        assert_eq!(after(&mut choice, 0), Some(Codec::Plain));
        assert_eq!(after(&mut choice, 90), None);
    }

    #[test]
    fn what_was_asked_for_is_not_measured() {
        for (choice, codec) in [(Compress::None, Codec::Plain), (Compress::Zstd, Codec::Zstd)] {
            let mut choice = CodecChoice::new(choice, false);
            assert_eq!(after(&mut choice, 90), None);
            assert_eq!(after(&mut choice, 0), None);
            assert_eq!(choice.codec(), codec);
        }
    }
}
