//! Whether pages travel compressed: only where that makes them arrive sooner.
//!
//! A sender that mostly waits for room may be held up by a slow network, and zstd then turns
//! waiting into fewer bytes; or by processors that have other things to do, and zstd then makes it
//! worse. From outside the two look alike, so it is tried, and what was faster stays. One window
//! may have been an accident, so pages stay compressed only as long as that goes on being faster.

use protocol::pages::Codec;
use std::time::{Duration, Instant};

/// What one core compresses at level 1. Nothing faster is worth a trial.
pub(crate) const COMPRESSOR_BYTES_PER_S: u64 = 400_000_000;

/// Bytes of pages to a judgement. The buffers between us and the wire hold more: the first window
/// sees no wait and changes nothing, and the first one after a change still measures what was
/// before it.
const WINDOW_BYTES: u64 = 16 << 20;

/// A gain that is not an accident.
const BETTER_PERCENT: u128 = 120;

/// Slower than plain pages were for so long, and it was no gain after all.
const WINDOWS_SLOWER_MAX: u32 = 2;

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub(crate) enum Compress {
    /// As measured while copying.
    Auto,
    Zstd,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Plain, until a window shows that it is waited a lot.
    Watching,
    /// Compressed, to be compared with what plain pages did.
    Trying {
        plain_bytes_per_s: u128,
        has_begun: bool,
    },
    /// Compressed, because that was faster than what plain pages did.
    Compressing {
        plain_bytes_per_s: u128,
        windows_slower: u32,
    },
    Decided(Codec),
}

#[derive(Debug)]
pub(crate) struct CodecChoice {
    stand: Stand,
    bytes: u64,
    waited: Duration,
    since: Instant,
}

impl CodecChoice {
    /// A limit that the operator set is a slow network without any doubt.
    pub(crate) fn new(choice: Compress, link_is_slow: bool) -> Self {
        let stand = match choice {
            Compress::Auto if !link_is_slow => Stand::Watching,
            Compress::Auto | Compress::Zstd => Stand::Decided(Codec::Zstd),
            Compress::None => Stand::Decided(Codec::Plain),
        };
        Self { stand, bytes: 0, waited: Duration::ZERO, since: Instant::now() }
    }

    pub(crate) fn codec(&self) -> Codec {
        match self.stand {
            Stand::Watching => Codec::Plain,
            Stand::Trying { .. } | Stand::Compressing { .. } => Codec::Zstd,
            Stand::Decided(codec) => codec,
        }
    }

    /// Between rounds nothing is sent; that time says nothing.
    pub(crate) fn start_anew(&mut self) {
        (self.bytes, self.waited, self.since) = (0, Duration::ZERO, Instant::now());
    }

    /// Takes in that so many bytes of pages were handed over after such a wait. True when the
    /// codec is another one from here on.
    pub(crate) fn note(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        if self.bytes < WINDOW_BYTES || matches!(self.stand, Stand::Decided(_)) {
            return false;
        }
        let before = self.codec();
        self.stand = self.judge(self.since.elapsed().max(Duration::from_nanos(1)));
        self.start_anew();
        self.codec() != before
    }

    fn judge(&self, elapsed: Duration) -> Stand {
        let bytes_per_s = u128::from(self.bytes) * 1_000_000_000 / elapsed.as_nanos();
        match self.stand {
            Stand::Watching => {
                let is_slow = bytes_per_s < u128::from(COMPRESSOR_BYTES_PER_S);
                if is_slow && self.waited * 2 > elapsed {
                    Stand::Trying { plain_bytes_per_s: bytes_per_s, has_begun: false }
                } else {
                    Stand::Watching
                }
            }
            Stand::Trying { plain_bytes_per_s, has_begun: false } => {
                Stand::Trying { plain_bytes_per_s, has_begun: true }
            }
            Stand::Trying { plain_bytes_per_s, has_begun: true } => {
                if bytes_per_s * 100 > plain_bytes_per_s * BETTER_PERCENT {
                    Stand::Compressing { plain_bytes_per_s, windows_slower: 0 }
                } else {
                    Stand::Decided(Codec::Plain)
                }
            }
            Stand::Compressing { plain_bytes_per_s, windows_slower } => {
                let is_slower = bytes_per_s < plain_bytes_per_s;
                let windows_slower = if is_slower { windows_slower + 1 } else { 0 };
                if windows_slower == WINDOWS_SLOWER_MAX {
                    Stand::Decided(Codec::Plain)
                } else {
                    Stand::Compressing { plain_bytes_per_s, windows_slower }
                }
            }
            decided @ Stand::Decided(_) => decided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window that took so long, with so much of it waiting.
    fn window(choice: &mut CodecChoice, ms: u64, waited_percent: u64) -> Codec {
        choice.since = Instant::now().checked_sub(Duration::from_millis(ms)).unwrap();
        choice.note(WINDOW_BYTES, Duration::from_millis(ms * waited_percent / 100));
        choice.codec()
    }

    #[test]
    fn a_network_that_compression_helps_is_compressed_for() {
        let mut choice = CodecChoice::new(Compress::Auto, false);
        assert_eq!(window(&mut choice, 1000, 10), Codec::Plain);
        assert_eq!(window(&mut choice, 1000, 90), Codec::Zstd);
        assert_eq!(window(&mut choice, 1000, 90), Codec::Zstd);
        assert_eq!(window(&mut choice, 500, 90), Codec::Zstd);
        for _ in 0..5 {
            assert_eq!(window(&mut choice, 500, 90), Codec::Zstd);
        }
    }

    #[test]
    fn a_gain_that_does_not_last_was_none() {
        let mut choice = CodecChoice::new(Compress::Auto, false);
        for (ms, codec) in [
            (1000, Codec::Zstd),
            (1000, Codec::Zstd),
            (500, Codec::Zstd),
            (1500, Codec::Zstd),
            (500, Codec::Zstd),
            (1500, Codec::Zstd),
            (1500, Codec::Plain),
        ] {
            assert_eq!(window(&mut choice, ms, 90), codec);
        }
        assert_eq!(choice.stand, Stand::Decided(Codec::Plain));
    }

    #[test]
    fn busy_processors_are_not_given_more_to_do() {
        let mut choice = CodecChoice::new(Compress::Auto, false);
        for (ms, codec) in [(1000, Codec::Zstd), (1000, Codec::Zstd), (2000, Codec::Plain)] {
            assert_eq!(window(&mut choice, ms, 90), codec);
        }
        assert_eq!(choice.stand, Stand::Decided(Codec::Plain));
    }

    #[test]
    fn a_link_that_is_faster_than_the_compressor_is_no_trial() {
        let mut choice = CodecChoice::new(Compress::Auto, false);
        assert_eq!(window(&mut choice, 20, 90), Codec::Plain);
        assert_eq!(choice.stand, Stand::Watching);
    }

    #[test]
    fn what_was_asked_for_is_not_measured() {
        for (choice, is_slow, codec) in [
            (Compress::None, true, Codec::Plain),
            (Compress::Zstd, false, Codec::Zstd),
            (Compress::Auto, true, Codec::Zstd),
        ] {
            let mut choice = CodecChoice::new(choice, is_slow);
            assert_eq!(window(&mut choice, 1000, 90), codec);
            assert_eq!(window(&mut choice, 1000, 0), codec);
        }
    }
}
