//! The bar on a terminal: what is being copied, how fast, and how long the freeze would be.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

/// What is known after a round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) round: u32,
    pub(crate) bytes_per_s: f64,
    pub(crate) dirty_bytes_per_s: f64,
    pub(crate) predicted_ms: f64,
}

const TEMPLATE: &str =
    "{spinner} {prefix:9} [{wide_bar}] {binary_bytes} {binary_bytes_per_sec}  {msg}";

impl Bar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(crate) fn phase(&self, name: &str) {
        self.0.set_prefix(name.to_owned());
    }

    /// What there is to copy in the first round; later rounds are what was written.
    pub(crate) fn expect(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    pub(crate) fn moved(&self, bytes: u64) {
        if self.0.length().is_some_and(|length| length < bytes) {
            self.0.set_length(bytes);
        }
        self.0.set_position(bytes);
    }

    pub(crate) fn rates(&self, rates: &Rates) {
        let per_s = |bytes: f64| HumanBytes(whole(bytes));
        self.0.set_message(format!(
            "round {}: {}/s, written {}/s, downtime {:.1} ms",
            rates.round,
            per_s(rates.bytes_per_s),
            per_s(rates.dirty_bytes_per_s),
            rates.predicted_ms
        ));
    }

    /// Prints while the bar is out of the way.
    pub(crate) fn above(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for the eye only")]
fn whole(bytes: f64) -> u64 {
    bytes as u64
}
