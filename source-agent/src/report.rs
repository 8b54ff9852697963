//! What the operator is told while it goes on.

use crate::ending::{Ending, name};
use crate::events::Event;
use crate::output::Output;
use crate::progress::Rates;
use crate::summary::{Account, ms};
use protocol::pages::Tally;
use protocol::source::{Action, Input, State};
use protocol::{Message, Outcome, Phase};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Report {
    output: Output,
    account: Account,
    phase: Option<Phase>,
    /// Of the round under way.
    tally: Tally,
    measured: Option<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    dirty_pages: u64,
    took: Duration,
}

impl Report {
    pub(crate) fn new(output: Output) -> Self {
        let (account, tally) = (Account::new(), Tally::default());
        Self { output, account, phase: None, tally, measured: None }
    }

    pub(crate) fn note(&self, text: &str) {
        self.output.event(&Event::Note { text: text.to_owned() });
        self.output.text(&format!("Note: {text}"));
    }

    pub(crate) fn step(&mut self, name: String, took: Duration) {
        self.account.step(name, took);
    }

    pub(crate) fn expects(&self, bytes: u64) {
        self.output.bar().inspect(|bar| bar.expect(bytes));
    }

    pub(crate) fn moved(&self, bytes: u64) {
        self.output.bar().inspect(|bar| bar.moved(bytes));
    }

    /// What was heard, before anything is done about it.
    pub(crate) fn hears(&mut self, input: &Input, rtt: Duration) {
        match input {
            Input::RoundCopied(tally) => {
                self.tally = *tally;
                self.account.copied(*tally);
            }
            Input::Measured { dirty_pages, round_ns } => {
                let took = Duration::from_nanos(*round_ns);
                self.measured = Some(Measured { dirty_pages: *dirty_pages, took });
            }
            Input::Captured { .. } => self.account.captured(),
            Input::Message(Message::Ready(ready)) => self.account.ready(ready),
            Input::Message(Message::Decided(decided)) if decided.outcome() == Outcome::Running => {
                self.account.decided(decided, rtt);
            }
            Input::Message(Message::Complete(complete)) => self.account.complete(*complete),
            _ => {}
        }
    }

    pub(crate) fn says(&mut self, message: &Message) {
        if matches!(message, Message::Handover(_)) {
            self.account.handed_over();
        }
    }

    pub(crate) fn does(&mut self, action: &Action) {
        match action {
            Action::OpenRound { predicted_ns, .. } => self.round(predicted_ns.unwrap_or(0)),
            Action::Freeze { reason, predicted_ns } => {
                self.account.freeze_begins();
                self.round(*predicted_ns);
                tracing::info!(%reason, predicted_ns, "freezing");
            }
            _ => {}
        }
    }

    pub(crate) fn is_in(&mut self, state: &State) {
        let phase = state.phase();
        if self.phase != Some(phase) && !matches!(state, State::Kept(_) | State::Gone(_)) {
            self.phase = Some(phase);
            self.output.event(&Event::Phase { name: name(phase) });
            self.output.bar().inspect(|bar| bar.phase(&name(phase)));
        }
    }

    /// What the freeze is predicted to last is known only when the next step was decided on.
    fn round(&mut self, predicted_ns: u64) {
        let Some(Measured { dirty_pages, took }) = self.measured.take() else { return };
        let round = self.account.round();
        let predicted_ms = ms(Duration::from_nanos(predicted_ns));
        let Tally { pages, zero_pages, dropped_pages, bytes_wire, .. } = self.tally;
        self.output.event(&Event::Round {
            round,
            pages,
            bytes: bytes_wire,
            zero_pages,
            dropped_pages,
            duration_ms: ms(took),
            dirty_pages,
            predicted_ms,
        });
        let per_s = |bytes: u64| per_second(bytes, took);
        let (bytes_per_s, dirty_bytes_per_s) = (per_s(bytes_wire), per_s(dirty_pages << 12));
        let rates = Rates { round, bytes_per_s, dirty_bytes_per_s, predicted_ms };
        self.output.bar().inspect(|bar| bar.rates(&rates));
    }

    /// The last words.
    pub(crate) fn ends(&self, ending: &Ending, destination: &str) {
        self.output.bar().inspect(|bar| bar.clear());
        ending.say(&self.output);
        if let Ending::Moved = ending {
            self.output.text(&format!("Moved: it runs on {destination}."));
            self.output.text(&self.account.text());
        }
        if matches!(ending, Ending::Moved | Ending::PagesMissing { .. }) {
            self.output.event(&Event::Summary(self.account.summary(ending.runs_on())));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for the eye only")]
fn per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64().max(1e-6)
}
