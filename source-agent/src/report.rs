//! What the operator is told while it goes on.

use crate::ending::{Ending, Purpose, name};
use crate::events::{Event, RunsOn};
use crate::output::Output;
use crate::progress::{Measures, Progress, Rates};
use crate::summary::{Account, ms};
use protocol::pages::Tally;
use protocol::source::{Action, Input, State, Why};
use protocol::{Message, Outbox, Outcome, Phase, Todo};
use std::time::{Duration, Instant, SystemTime};

#[derive(Debug)]
pub(crate) struct Report {
    output: Output,
    purpose: Purpose,
    account: Account,
    phase: Option<Phase>,
    /// What it is doing, as it was last shown.
    doing: String,
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
    pub(crate) fn new(output: Output, purpose: Purpose) -> Self {
        let (account, tally) = (Account::new(), Tally::default());
        let (phase, doing, measured) = (None, String::new(), None);
        Self { output, purpose, account, phase, doing, tally, measured }
    }

    pub(crate) fn note(&self, text: &str) {
        self.output.event(&Event::Note { text: text.to_owned() });
        self.output.text(&format!("Note: {text}"));
    }

    pub(crate) fn step(&mut self, name: String, took: Duration) {
        self.account.step(name, took);
    }

    pub(crate) fn expects(&self, bytes: u64) {
        self.output.show(Progress::Expects(bytes));
    }

    pub(crate) fn moved(&self, bytes: u64) {
        self.output.show(Progress::Moved(bytes));
    }

    /// What was heard, before anything is done about it.
    pub(crate) fn hears(&mut self, input: &Input, rtt: Duration) {
        match input {
            Input::RoundCopied(tally) => {
                self.tally = *tally;
                self.account.copied(*tally);
            }
            Input::Measured { dirty_pages, round_ns, .. } => {
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

    /// What is about to be done. That a round has ended comes before the phase that follows it.
    pub(crate) fn decides(&mut self, out: &Outbox<Action>) {
        for todo in out.iter() {
            match todo {
                Todo::Do(Action::OpenRound { round, predicted_ns, .. }) => {
                    let measures = self.round(*predicted_ns);
                    self.output.show(Progress::Rates(Rates { round: round + 1, measures }));
                }
                Todo::Do(Action::Freeze { predicted_ns, .. }) => {
                    let measures = self.round(Some(*predicted_ns));
                    let round = self.account.rounds();
                    self.output.show(Progress::Rates(Rates { round, measures }));
                }
                _ => {}
            }
        }
    }

    pub(crate) fn does(&mut self, action: &Action) {
        if let Action::Freeze { reason, predicted_ns } = action {
            tracing::info!(%reason, predicted_ns, "freezing");
        }
    }

    pub(crate) fn freezes(&mut self, began: Instant, at: SystemTime) {
        self.account.freeze_begins(began, at);
    }

    pub(crate) fn is_in(&mut self, state: &State) {
        if matches!(state, State::Kept(_) | State::Gone(_)) {
            return;
        }
        let phase = state.phase();
        if self.phase != Some(phase) {
            self.phase = Some(phase);
            self.output.event(&Event::Phase { name: name(phase) });
        }
        let doing = doing(state);
        if self.doing != doing {
            self.shows(&doing);
            self.doing = doing;
        }
    }

    pub(crate) fn shows(&self, doing: &str) {
        self.output.show(Progress::Phase(doing.to_owned()));
    }

    /// What the freeze is predicted to last is known only when the next step was decided on.
    fn round(&mut self, predicted_ns: Option<u64>) -> Option<Measures> {
        let Measured { dirty_pages, took } = self.measured.take()?;
        let round = self.account.round();
        let predicted_ms = predicted_ns.map(|predicted| ms(Duration::from_nanos(predicted)));
        let Tally { pages, zero_pages, dropped_pages, bytes_wire, .. } = self.tally;
        self.output.event(&Event::Round {
            round,
            pages,
            bytes: bytes_wire,
            zero_pages,
            dropped_pages,
            duration_ms: ms(took),
            dirty_pages,
            predicted_ms: predicted_ms.unwrap_or(0.0),
        });
        Some(Measures { dirty_bytes_per_s: per_second(dirty_pages << 12, took), predicted_ms })
    }

    /// What is told to those who do not want to wait any longer, while it goes on.
    pub(crate) fn dismiss(&self, standing: &Ending) {
        if !self.output.is_alone() {
            standing.say(&self.output, self.purpose);
            self.output.text("The source agent goes on with it.");
            self.output.dismiss(standing.code());
        }
    }

    /// The last words.
    pub(crate) fn ends(&self, ending: &Ending, destination: &str) {
        self.output.clear();
        ending.say(&self.output, self.purpose);
        if let Ending::Moved = ending {
            self.output.text(&format!("Moved: it runs on {destination}."));
            self.output.text(&self.account.text());
        }
        if matches!(ending.runs_on(), RunsOn::Destination) {
            self.output.event(&Event::Summary(self.account.summary(ending.runs_on())));
        }
        self.output.dismiss(ending.code());
    }
}

/// As the operator reads it: a tree that stays is not done.
fn doing(state: &State) -> String {
    match state {
        State::Thawing(thawing) => match thawing.why() {
            Why::Cancelled => "being cancelled".to_owned(),
            Why::Failed(_) => "being let go on here".to_owned(),
        },
        State::Stuck(_) => "stuck".to_owned(),
        State::Reaping(_) => "ending the original".to_owned(),
        state => name(state.phase()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for the eye only")]
fn per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64().max(1e-6)
}
