//! The bar on a terminal: what is being copied, how fast, and how long the freeze would be.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

/// What the bar is to show from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Progress {
    Phase(String),
    /// Bytes that the first round has to copy; later rounds are what was written.
    Expects(u64),
    /// Bytes so far.
    Moved(u64),
    Rates(Rates),
}

/// What is known of the rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Rates {
    /// That is under way, or was the last: counted from 1.
    pub(crate) round: u32,
    /// Of the round that has ended last; none in the first.
    pub(crate) measures: Option<Measures>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measures {
    pub(crate) dirty_bytes_per_s: f64,
    pub(crate) predicted_ms: Option<f64>,
}

/// Two lines, so that what is known fits into 80 columns; what is too long even so is cut off.
const TEMPLATE: &str =
    "{spinner} {prefix:9} [{wide_bar}] {binary_bytes} {binary_bytes_per_sec}\n  {wide_msg}";

impl Bar {
    pub(crate) fn new() -> Self {
        let bar = Self::on(ProgressDrawTarget::stderr());
        bar.0.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    fn on(terminal: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, terminal);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(crate) fn show(&self, progress: &Progress) {
        match progress {
            Progress::Phase(name) => self.phase(name),
            Progress::Expects(bytes) => self.0.set_length(*bytes),
            Progress::Moved(bytes) => self.moved(*bytes),
            Progress::Rates(rates) => self.0.set_message(rates.text()),
        }
    }

    /// What was predicted of the freeze is of no interest once it is over.
    fn phase(&self, name: &str) {
        if name == "lazy" {
            self.0.set_message("");
        }
        self.0.set_prefix(name.to_owned());
    }

    fn moved(&self, bytes: u64) {
        if self.0.length().is_some_and(|length| length < bytes) {
            self.0.set_length(bytes);
        }
        self.0.set_position(bytes);
    }

    /// Prints while the bar is out of the way.
    pub(crate) fn above(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Rates {
    fn text(&self) -> String {
        let mut parts = vec![format!("round {}", self.round)];
        if let Some(Measures { dirty_bytes_per_s, predicted_ms }) = self.measures {
            parts.push(format!("the program writes {}/s", HumanBytes(whole(dirty_bytes_per_s))));
            parts.extend(predicted_ms.map(|ms| format!("predicted downtime {ms:.1} ms")));
        }
        parts.join(", ")
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for the eye only")]
fn whole(bytes: f64) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::io;
    use std::sync::{Arc, Mutex};

    /// Remembers every line that was ever drawn.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl Terminal {
        const COLUMNS: u16 = 80;

        fn write(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn lines(&self) -> Vec<String> {
            self.0.lock().unwrap().lines().map(|line| line.trim_end().to_owned()).collect()
        }
    }

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            Self::COLUMNS
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            self.write("\n")
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            self.write("\n")
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write(text)?;
            self.write("\n")
        }

        /// Padded to the width of the terminal where a line is full.
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.write(text)?;
            self.write("\n")
        }

        fn clear_line(&self) -> io::Result<()> {
            self.write("\n")
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(all: &[Progress]) -> Vec<String> {
        let terminal = Terminal::default();
        let bar = Bar::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        all.iter().for_each(|progress| bar.show(progress));
        bar.0.tick();
        terminal.lines()
    }

    fn rates(round: u32, dirty_bytes_per_s: f64, predicted_ms: Option<f64>) -> Progress {
        let measures = Some(Measures { dirty_bytes_per_s, predicted_ms });
        Progress::Rates(Rates { round, measures })
    }

    #[test]
    fn the_first_round_is_a_round() {
        let first = Progress::Rates(Rates { round: 1, measures: None });
        let lines = shown(&[Progress::Phase("rounds".into()), first]);
        assert!(lines.iter().any(|line| line == "  round 1"), "{lines:#?}");
    }

    #[test]
    fn a_prediction_is_called_one_and_is_left_out_where_there_is_none() {
        let known = shown(&[rates(3, 12.0 * 1024.0 * 1024.0, Some(12.34))]);
        let text = "  round 3, the program writes 12.00 MiB/s, predicted downtime 12.3 ms";
        assert!(known.iter().any(|line| line == text), "{known:#?}");
        let unknown = shown(&[rates(2, 0.0, None)]);
        let text = "  round 2, the program writes 0 B/s";
        assert!(unknown.iter().any(|line| line == text), "{unknown:#?}");
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        let long = rates(100, 1e15, Some(1e12));
        let phases = ["handover", "being cancelled", "being let go on here", "ending the original"];
        for phase in phases.map(|phase| Progress::Phase(phase.into())) {
            let all =
                [phase, Progress::Expects(1 << 50), Progress::Moved((1 << 50) - 1), long.clone()];
            let lines = shown(&all);
            assert!(lines.iter().any(|line| line.contains("round 100")), "{lines:#?}");
            for line in lines {
                assert!(line.chars().count() <= Terminal::COLUMNS.into(), "{line:?}");
            }
        }
    }
}
