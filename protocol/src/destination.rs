//! The destination's machine. Its decision is what makes a migration happen.
//!
//! The decision is taken once: it is written down before anything is done about it, and it is the
//! answer to every later question, for ever, whatever restarts lie between. A destination that is
//! asked about a migration it knows nothing of decides `Discarded` and writes that down too, so
//! that a permit which comes late finds the question settled.
//!
//! The driver keeps one machine per migration and finds it by the id of the stream's head. A new
//! control stream for a migration replaces the one before: the driver ends that one, and feeds its
//! `Disconnected`, before the first message of the new one.

mod deciding;
mod filling;
mod negotiating;
mod storing;

use crate::failure::{Failure, Phase, Side};
use crate::limits;
use crate::machine::{Fault, Link, Outbox, link_lost, timed_out};
use crate::message::{
    Abort, Complete, Decided, Message, MigrationId, Offer, Outcome, Ready as Timings, Refusal,
    Refuse, RoundEnd, Stage,
};
use crate::version::Hello;
use bytes::Bytes;
use std::time::Duration;

pub use deciding::{Deciding, Discarded, Lost, Settling, Stuck};
pub use filling::{Completed, Completing, Filling};
pub use negotiating::{Accepted, Accepting, Declined, Greeted, Judging, Listening, Staging};
pub use storing::{Building, Landing, Ready, Receiving, Storing};

/// One thing the driver must do on the destination host. Each is answered by the input named with
/// it, or by `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Find everything that stands against this offer here. → `Judged`
    Judge(Offer),
    /// Write the entry into the journal. → `Recorded`
    ///
    /// Before `Decided(Running)`, make the stopped tree outlive this agent without running: queue
    /// a stop for every process, then lift what would kill them with us. The line has to survive
    /// the agent, so it needs no sync before the tree runs; sync it right after.
    Record(Entry),
    /// Build every process as a stopped stub with its final PID. → `ShellBuilt`
    BuildShell(Stage),
    /// Apply the layout unless it is empty, then let the bulk streams store up to their end
    /// records of this round.
    OpenRound { round: u32, layout: Bytes },
    /// Answer when every bulk stream's end record of the round was stored. → `RoundStored`
    AwaitRound(RoundEnd),
    /// Rebuild objects, aspects and threads; arm lazy memory for what is stale once the round has
    /// landed. → `Built`
    Build { image: Bytes },
    /// Let the tree run; nothing if it already does. → `Running`, or `TreeLost`
    Run,
    /// Serve faults and take in what is pushed, until nothing is missing; after a restart, with the
    /// userfaultfds that the holder kept. → `Filled`
    Fill,
    /// List the pages that are still missing. → `MissingListed`
    ListMissing,
    /// Everything was pushed: once the streams have ended, ask for what is still missing.
    PushEnded,
    /// End every process of this migration here, whatever became of it, and remove every trace.
    /// → `Discarded`
    Discard,
}

/// What went wrong, by the action that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    Judge,
    Record,
    BuildShell,
    Store,
    Build,
    Run,
    Fill,
    Discard,
}

/// The journal's lines; the last one of a migration is what a restarted agent goes by.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// From here on there may be something to discard.
    Accepted,
    Decided(Outcome),
    Complete(Complete),
    /// It ran here and does no more, and not because it was done.
    Lost(Failure),
}

/// Whether the kernel that wrote the journal's last line is still the one that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    Same,
    Another,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Message(Message),
    /// With the clocks read as late as possible; see [`crate::message::Accept`].
    Judged {
        refusals: Vec<Refusal>,
        monotonic_ns: u64,
        boottime_ns: u64,
    },
    Recorded(Entry),
    ShellBuilt,
    RoundStored {
        round: u32,
        pages: u64,
    },
    Built(Timings),
    /// Nanoseconds from the receipt of `Handover`; 0 after a restart.
    Running {
        resumed_after_ns: u64,
    },
    Discarded,
    /// No page is missing any more, or the tree has ended by itself and needs none.
    Filled(Complete),
    MissingListed {
        runs: Bytes,
    },
    Failed {
        doing: Doing,
        failure: Failure,
    },
    /// The tree was ended because its pages could not come, or cannot be found.
    TreeLost(Failure),
    Disconnected {
        cause: String,
    },
    /// Nothing was fed for as long as [`State::patience`] allows.
    TimedOut,
    /// Pages are moving: patience starts anew.
    Progress,
    /// The operator has cleared what made `Stuck`.
    Retry,
    /// The operator gives up the tree that runs, or starves, here.
    Buried,
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Listening(Listening),
    Greeted(Greeted),
    Judging(Judging),
    Accepting(Accepting),
    Accepted(Accepted),
    Staging(Staging),
    Storing(Storing),
    Receiving(Receiving),
    Landing(Landing),
    Building(Building),
    Ready(Ready),
    Deciding(Deciding),
    Settling(Settling),
    Filling(Filling),
    Completing(Completing),
    /// The tree runs here and has every page.
    Complete(Completed),
    Discarded(Discarded),
    /// The offer was not accepted.
    Declined(Declined),
    /// A decision was taken that could not be written down or carried out.
    Stuck(Stuck),
    /// The tree ran here and is no more; only an operator can say what follows.
    Lost(Lost),
}

impl State {
    /// For a stream whose migration has no machine and no line in the journal.
    pub fn listen(hello: Hello) -> Self {
        Self::Listening(Listening { hello })
    }

    /// Where an agent that was restarted finds itself.
    pub fn recover(id: MigrationId, last: Entry, boot: Boot, out: &mut Outbox<Action>) -> Self {
        match (last, boot) {
            (Entry::Accepted, _) => Deciding::start(id, Outcome::Discarded, Link::Down, out),
            (Entry::Decided(Outcome::Running), Boot::Another) => {
                let failure = failure(Phase::Lazy, "go on with", "the tree")
                    .because("this host was rebooted since it was decided that the tree runs here");
                Lost::start(id, failure, out)
            }
            (Entry::Decided(outcome), _) => Settling::start(id, outcome, Link::Down, out),
            (Entry::Complete(complete), _) => Completed::start(id, 0, complete),
            (Entry::Lost(failure), _) => State::Lost(Lost { id, failure }),
        }
    }

    /// Takes one step. What makes no sense leaves the state as it was.
    pub fn handle(self, input: Input, out: &mut Outbox<Action>) -> Result<Self, Fault<Self>> {
        match (self, input) {
            (state, Input::Progress) => Ok(state),
            (Self::Listening(s), input) => s.handle(input, out),
            (Self::Greeted(s), input) => s.handle(input, out),
            (Self::Judging(s), input) => s.handle(input, out),
            (Self::Declined(s), input) => s.handle(input, out),
            (Self::Accepting(s), input) => s.handle(input, out),
            (Self::Accepted(s), input) => s.handle(input, out),
            (Self::Staging(s), input) => s.handle(input, out),
            (Self::Storing(s), input) => s.handle(input, out),
            (Self::Receiving(s), input) => s.handle(input, out),
            (Self::Landing(s), input) => s.handle(input, out),
            (Self::Building(s), input) => s.handle(input, out),
            (Self::Ready(s), input) => s.handle(input, out),
            (Self::Deciding(s), input) => s.handle(input, out),
            (Self::Settling(s), input) => s.handle(input, out),
            (Self::Filling(s), input) => s.handle(input, out),
            (Self::Completing(s), input) => s.handle(input, out),
            (Self::Complete(s), input) => s.handle(input, out),
            (Self::Discarded(s), input) => s.handle(input, out),
            (Self::Stuck(s), input) => s.handle(input, out),
            (Self::Lost(s), input) => s.handle(input, out),
        }
    }

    /// How long this state waits for its next input before it wants `TimedOut`; `None` while it
    /// waits for an action of its own driver, or for a source that may come back at any time.
    pub fn patience(&self) -> Option<Duration> {
        Some(match self {
            Self::Listening(_) => limits::HELLO_WAIT,
            Self::Greeted(_) => limits::OFFER_WAIT,
            Self::Accepted(_) => limits::STAGE_WAIT,
            Self::Storing(_) | Self::Receiving(_) | Self::Landing(_) => limits::ROUND_WAIT,
            Self::Ready(_) => limits::HANDOVER_WAIT,
            _ => return None,
        })
    }

    /// What the driver files this machine under; `None` before there was an offer.
    pub fn id(&self) -> Option<MigrationId> {
        Some(match self {
            Self::Listening(_) | Self::Greeted(_) => return None,
            Self::Declined(declined) => return declined.id,
            Self::Judging(Judging { id, .. })
            | Self::Accepting(Accepting { id, .. })
            | Self::Accepted(Accepted { id })
            | Self::Staging(Staging { id })
            | Self::Storing(Storing { id, .. })
            | Self::Receiving(Receiving { id, .. })
            | Self::Landing(Landing { id, .. })
            | Self::Building(Building { id, .. })
            | Self::Ready(Ready { id })
            | Self::Deciding(Deciding { id, .. })
            | Self::Settling(Settling { id, .. })
            | Self::Filling(Filling { id, .. })
            | Self::Completing(Completing { id, .. })
            | Self::Complete(Completed { id, .. })
            | Self::Discarded(Discarded { id })
            | Self::Stuck(Stuck { id, .. })
            | Self::Lost(Lost { id, .. }) => *id,
        })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Listening(_) => "Listening",
            Self::Greeted(_) => "Greeted",
            Self::Judging(_) => "Judging",
            Self::Declined(_) => "Declined",
            Self::Accepting(_) => "Accepting",
            Self::Accepted(_) => "Accepted",
            Self::Staging(_) => "Staging",
            Self::Storing(_) => "Storing",
            Self::Receiving(_) => "Receiving",
            Self::Landing(_) => "Landing",
            Self::Building(_) => "Building",
            Self::Ready(_) => "Ready",
            Self::Deciding(_) => "Deciding",
            Self::Settling(_) => "Settling",
            Self::Filling(filling) if filling.is_starving() => "Starving",
            Self::Filling(_) => "Filling",
            Self::Completing(_) => "Completing",
            Self::Complete(complete) if complete.source_is_done() => "Done",
            Self::Complete(_) => "Complete",
            Self::Discarded(_) => "Discarded",
            Self::Stuck(_) => "Stuck",
            Self::Lost(_) => "Lost",
        }
    }

    fn fault(self, input: &Input) -> Fault<Self> {
        Fault { name: self.name(), state: Box::new(self), input: input.name() }
    }

    /// Discards a migration that was not decided, if the input is a reason to.
    fn stop(
        self,
        id: MigrationId,
        input: Input,
        out: &mut Outbox<Action>,
    ) -> Result<Self, Fault<Self>> {
        let phase = self.phase();
        let (failure, link) = match input {
            Input::Failed { failure, .. } | Input::TreeLost(failure) => (Some(failure), Link::Up),
            Input::TimedOut => (Some(timed_out(Side::Destination, phase, self.name())), Link::Up),
            Input::Disconnected { .. } => (None, Link::Down),
            Input::Message(Message::Abort(_)) => (None, Link::Up),
            // A source that asks will not hand over any more.
            Input::Message(Message::Inquire(inquire)) if inquire.migration == id => {
                (None, Link::Up)
            }
            other => return Err(self.fault(&other)),
        };
        if let Some(failure) = failure {
            out.send(abort(failure));
        }
        Ok(Deciding::start(id, Outcome::Discarded, link, out))
    }

    /// Where the operator is told that it stopped.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Listening(_) | Self::Greeted(_) => Phase::Hello,
            Self::Judging(_) | Self::Declined(_) | Self::Accepting(_) => Phase::Offer,
            Self::Accepted(_) | Self::Staging(_) => Phase::Stage,
            Self::Storing(_) | Self::Receiving(_) | Self::Landing(_) => Phase::Rounds,
            Self::Building(_) => Phase::Final,
            Self::Ready(_) => Phase::Ready,
            Self::Deciding(_) | Self::Settling(_) | Self::Stuck(_) => Phase::Handover,
            Self::Filling(_) | Self::Completing(_) | Self::Lost(_) => Phase::Lazy,
            Self::Complete(_) | Self::Discarded(_) => Phase::Done,
        }
    }
}

impl Input {
    fn name(&self) -> String {
        match self {
            Self::Message(message) => message.name().to_owned(),
            // Up to the first field: images and layouts are no reading matter.
            other => {
                let text = format!("{other:?}");
                text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
            }
        }
    }
}

fn failure(phase: Phase, action: &str, object: &str) -> Failure {
    Failure::new(Side::Destination, phase, action, object)
}

fn abort(failure: Failure) -> Message {
    Message::Abort(Abort { failure, is_lost: false })
}

fn lost(failure: Failure) -> Message {
    Message::Abort(Abort { failure, is_lost: true })
}

fn decided(id: MigrationId, outcome: Outcome, resumed_after_ns: u64) -> Message {
    Message::Decided(Decided::new(id, outcome, resumed_after_ns))
}

/// The answer to an offer that repeats the id of a migration which has been decided.
fn refuse_again(id: MigrationId) -> Message {
    let object = format!("migration {id}");
    let reason = "was already decided on this host";
    Message::Refuse(Refuse::new(vec![Refusal::new(object, reason, "Start another one.")]))
}

fn trouble(phase: Phase, cause: String) -> Failure {
    link_lost(Side::Destination, phase, cause)
}
