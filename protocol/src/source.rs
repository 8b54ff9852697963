//! The source's machine: which states it passes through, and what it does in each.
//!
//! Everything before `Surrendering` may end with the tree running here, for any reason, as if
//! nobody had asked. From then on **only the destination's decision counts**: the record of the
//! surrender may be followed by a permit that the destination acts on at once, so thawing here
//! without having heard `Discarded` could make two of the tree. A source that hears nothing stays
//! in doubt, with the tree frozen, and goes on asking.
//!
//! After the handover the frozen original still serves the pages that the destination lacks. It is
//! reaped when the destination has said that it has every page, and that was written down.

mod copying;
mod ending;
mod finishing;
mod handover;
mod negotiating;
mod serving;

use crate::convergence::{Goal, Reason};
use crate::failure::{Failure, Phase, Side};
use crate::limits;
use crate::machine::{Fault, Link, Outbox};
use crate::message::{Abort, Accept, Message, MigrationId, Outcome, Refusal};
use crate::pages::Tally;
use crate::version::{Hello, Offered};
use bytes::Bytes;
use std::time::Duration;

pub use copying::{Copying, Landing, Measuring, Opening};
pub use ending::{Stuck, Thawing, Why};
pub use finishing::{Building, Finishing, Freezing};
pub use handover::{Awaiting, InDoubt, Surrendering};
pub use negotiating::{Describing, Greeting, Inspecting, Offering, Staging};
pub use serving::{Reaping, Relieving, Serving};

/// What the operator asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub id: MigrationId,
    pub goal: Goal,
    pub compress: bool,
    /// Stop after the destination's judgement, with nothing touched.
    pub only_check: bool,
}

/// One thing the driver must do on the source host. Each is answered by the input named with it,
/// or by `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Look at the tree from outside. → `Inspected`
    Inspect { destination: Box<Hello> },
    /// Write the entry into the journal. → `Recorded`
    ///
    /// Before `Surrendered`, queue the stop for every process that outlives this agent (DESIGN:
    /// the freeze guard). Nothing needs to be synced: a line has to survive the agent, and when
    /// the kernel dies the tree does too.
    Record(Entry),
    /// Describe the tree's layout, and compute the clock offsets from the destination's clocks.
    /// → `Described`
    Describe { destination: Accept },
    /// After a pause, scan the mappings. Of the last round that is allowed nothing may be held
    /// back. → `RoundOpened`
    OpenRound { round: u32, after: Duration, is_last: bool, predicted_ns: Option<u64> },
    /// Send every page that was written since the round before; of round 0, every page that is not
    /// held back. Each bulk stream ends its part with the end record of this round. → `RoundCopied`
    CopyRound { round: u32 },
    /// Send only what cannot follow lazily, and tell the destination to forget all else that was
    /// written, of which the machine has no further use there. As a round. → `RoundCopied`
    Withdraw { round: u32 },
    /// Count what is dirty now, without clearing it. → `Measured`
    Measure,
    /// Stop every thread and scan the mappings for the last time. → `Frozen`
    Freeze { reason: Reason, predicted_ns: u64 },
    /// Send what is left, as a round; with `lazy`, only the hot pages, and stale records for the
    /// rest. → `RoundCopied`
    CopyRest { round: u32, lazy: bool },
    /// Capture everything that is not memory. May go on at the same time. → `Captured`
    Capture,
    /// Let the tree run as if nobody had asked, whatever had been done to it: take the trackers
    /// away, drop the queued stop. Harmless on a tree that was never touched. → `Thawed`, or
    /// `TreeEnded` when there is none left.
    Thaw,
    /// Answer faults, and push what the last round called stale. → `Pushed`
    Serve,
    /// Push exactly these pages instead. → `Pushed`
    Push { missing: Bytes },
    /// Drop the link if there is one and try once to make another. → `Reconnected`, or
    /// `Disconnected`.
    Reconnect,
    /// End the frozen original and every trace of it. → `Reaped`
    Reap,
}

/// What went wrong, by the action that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    Inspect,
    Record,
    Describe,
    Copy,
    Freeze,
    Capture,
    Thaw,
    Serve,
    Reap,
}

/// The journal's lines; the last one of a migration is what a restarted agent goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// From here on the tree may be touched.
    Opened,
    /// The right to run may have been given away.
    Surrendered,
    /// The destination said that the tree runs there. If it ever says otherwise, it has forgotten,
    /// and thawing would take the tree back to a time before others have seen it run.
    RunsThere,
    /// The destination has every page: the original may be reaped.
    Relieved,
    Moved,
    Kept,
    Gone,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Message(Message),
    Inspected(Inspection),
    Recorded(Entry),
    Described {
        layout: Bytes,
        monotonic_offset_ns: i64,
        boottime_offset_ns: i64,
    },
    /// With an empty layout when it has not changed.
    RoundOpened {
        layout: Bytes,
    },
    RoundCopied(Tally),
    /// `round_ns` is the time since the round was opened.
    Measured {
        dirty_pages: u64,
        held_back_pages: u64,
        /// Pages whose content has to be compared in the freeze.
        compared_pages: u64,
        round_ns: u64,
    },
    Frozen {
        layout: Bytes,
    },
    Captured {
        image: Bytes,
    },
    Thawed,
    Pushed,
    Reaped,
    Failed {
        doing: Doing,
        failure: Failure,
    },
    /// No process of the tree is left on this host.
    TreeEnded(Failure),
    Disconnected {
        cause: String,
    },
    Reconnected,
    /// Nothing was fed for as long as [`State::patience`] allows.
    TimedOut,
    /// Pages are moving: patience starts anew.
    Progress,
    /// The operator wants the tree to stay. Too late once the surrender is being recorded.
    Cancelled,
    /// The operator answers for what became of the tree on a destination that cannot be asked.
    Vouched(Outcome),
    /// The operator has cleared what made `Stuck`.
    Retry,
}

/// What the inventory found.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    pub inventory: Bytes,
    pub memory_bytes: u64,
    pub process_count: u32,
    pub thread_count: u32,
    /// The kinds and aspects that this tree has.
    pub kinds: Vec<Offered>,
    pub aspects: Vec<Offered>,
    pub refusals: Vec<Refusal>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Greeting(Greeting),
    Inspecting(Inspecting),
    Offering(Offering),
    Describing(Describing),
    Staging(Staging),
    Opening(Opening),
    Copying(Copying),
    Landing(Landing),
    Measuring(Measuring),
    Freezing(Freezing),
    Finishing(Finishing),
    Building(Building),
    Surrendering(Surrendering),
    Awaiting(Awaiting),
    InDoubt(InDoubt),
    Serving(Serving),
    Relieving(Relieving),
    Reaping(Reaping),
    Thawing(Thawing),
    /// The tree stands still here and could not be thawed, or not reaped.
    Stuck(Stuck),
    /// It could be moved; nothing was touched.
    Movable,
    /// It cannot be moved, for these reasons; nothing was touched.
    Refused(Vec<Refusal>),
    /// The tree still runs here, as if nothing had been asked.
    Kept(Why),
    /// The tree runs on the destination, and nothing of it is left here.
    Moved,
    /// The tree ended here, by itself or by someone's hand.
    Gone(Failure),
}

impl State {
    pub fn start(plan: Plan, hello: Hello, out: &mut Outbox<Action>) -> Self {
        Self::Greeting(Greeting::start(plan, hello, out))
    }

    /// Where an agent that was restarted finds itself.
    pub fn recover(id: MigrationId, last: Entry, out: &mut Outbox<Action>) -> Self {
        match last {
            Entry::Opened => {
                let failure = failure(Phase::Rounds, "finish", "the migration")
                    .because("the agent was restarted in the middle of it");
                Thawing::recover(id, Why::Failed(failure), out)
            }
            Entry::Surrendered => InDoubt::start(id, Link::Down, out),
            Entry::RunsThere => InDoubt::recover_running(id, out),
            Entry::Relieved => Reaping::start(out),
            Entry::Moved => Self::Moved,
            Entry::Kept => Self::Kept(Why::Failed(failure(Phase::Done, "finish", "the migration"))),
            Entry::Gone => Self::Gone(failure(Phase::Done, "find", "the tree")),
        }
    }

    /// Takes one step. What makes no sense leaves the state as it was.
    pub fn handle(self, input: Input, out: &mut Outbox<Action>) -> Result<Self, Fault<Self>> {
        match (self, input) {
            (state, Input::Progress) => Ok(state),
            (Self::Greeting(s), input) => s.handle(input, out),
            (Self::Inspecting(s), input) => s.handle(input, out),
            (Self::Offering(s), input) => s.handle(input, out),
            (Self::Describing(s), input) => s.handle(input, out),
            (Self::Staging(s), input) => s.handle(input, out),
            (Self::Opening(s), input) => s.handle(input, out),
            (Self::Copying(s), input) => s.handle(input, out),
            (Self::Landing(s), input) => s.handle(input, out),
            (Self::Measuring(s), input) => s.handle(input, out),
            (Self::Freezing(s), input) => s.handle(input, out),
            (Self::Finishing(s), input) => s.handle(input, out),
            (Self::Building(s), input) => s.handle(input, out),
            (Self::Surrendering(s), input) => s.handle(input, out),
            (Self::Awaiting(s), input) => s.handle(input, out),
            (Self::InDoubt(s), input) => s.handle(input, out),
            (Self::Serving(s), input) => s.handle(input, out),
            (Self::Relieving(s), input) => s.handle(input, out),
            (Self::Reaping(s), input) => s.handle(input, out),
            (Self::Thawing(s), input) => s.handle(input, out),
            (Self::Stuck(s), input) => s.handle(input, out),
            (state, input) => state.at_rest(input),
        }
    }

    /// How long this state waits for its next input before it wants `TimedOut`; `None` while it
    /// waits for an action of its own driver, which always answers.
    pub fn patience(&self) -> Option<Duration> {
        Some(match self {
            Self::Greeting(_) => limits::HELLO_WAIT,
            Self::Offering(_) => limits::ACCEPT_WAIT,
            Self::Staging(_) => limits::STAGE_WAIT,
            Self::Copying(_) | Self::Landing(_) => limits::ROUND_WAIT,
            Self::Finishing(_) | Self::Building(_) => limits::READY_WAIT,
            Self::Awaiting(_) => limits::DECISION_WAIT,
            Self::InDoubt(_) => limits::RECONNECT_WAIT,
            Self::Serving(serving) => serving.patience(),
            _ => return None,
        })
    }

    /// Nothing more will be sent or done.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Movable | Self::Refused(_) | Self::Kept(_) | Self::Moved | Self::Gone(_)
        )
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Greeting(_) => "Greeting",
            Self::Inspecting(_) => "Inspecting",
            Self::Offering(_) => "Offering",
            Self::Describing(_) => "Describing",
            Self::Staging(_) => "Staging",
            Self::Opening(_) => "Opening",
            Self::Copying(_) => "Copying",
            Self::Landing(_) => "Landing",
            Self::Measuring(_) => "Measuring",
            Self::Freezing(_) => "Freezing",
            Self::Finishing(_) => "Finishing",
            Self::Building(_) => "Building",
            Self::Surrendering(_) => "Surrendering",
            Self::Awaiting(_) => "Awaiting",
            Self::InDoubt(_) => "InDoubt",
            Self::Serving(_) => "Serving",
            Self::Relieving(_) => "Relieving",
            Self::Reaping(_) => "Reaping",
            Self::Thawing(_) => "Thawing",
            Self::Stuck(_) => "Stuck",
            Self::Movable => "Movable",
            Self::Refused(_) => "Refused",
            Self::Kept(_) => "Kept",
            Self::Moved => "Moved",
            Self::Gone(_) => "Gone",
        }
    }

    /// Whatever still comes in has been overtaken by events, except for one thing: a destination
    /// that claims to run what it was never given has broken the only rule that counts. When the
    /// tree went with this host's kernel, so may have the line that says that it was given.
    fn at_rest(self, input: Input) -> Result<Self, Fault<Self>> {
        let runs_there = matches!(&input, Input::Message(Message::Decided(d))
            if d.outcome() == Outcome::Running);
        if runs_there && !matches!(self, Self::Moved | Self::Gone(_)) {
            return Err(self.fault(&input));
        }
        Ok(self)
    }

    fn fault(self, input: &Input) -> Fault<Self> {
        Fault { name: self.name(), state: Box::new(self), input: input.name() }
    }

    /// Where the operator is told that it stopped.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Greeting(_) => Phase::Hello,
            Self::Inspecting(_) | Self::Offering(_) | Self::Movable | Self::Refused(_) => {
                Phase::Offer
            }
            Self::Describing(_) | Self::Staging(_) => Phase::Stage,
            Self::Opening(_) | Self::Copying(_) | Self::Landing(_) | Self::Measuring(_) => {
                Phase::Rounds
            }
            Self::Freezing(_) => Phase::Freeze,
            Self::Finishing(_) => Phase::Final,
            Self::Building(_) => Phase::Ready,
            Self::Surrendering(_) | Self::Awaiting(_) | Self::InDoubt(_) => Phase::Handover,
            Self::Serving(_) | Self::Relieving(_) => Phase::Lazy,
            Self::Reaping(_) | Self::Thawing(_) | Self::Stuck(_) => Phase::Done,
            Self::Kept(_) | Self::Moved | Self::Gone(_) => Phase::Done,
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
    Failure::new(Side::Source, phase, action, object)
}

fn abort(failure: Failure) -> Message {
    Message::Abort(Abort { failure, is_lost: false })
}

fn round_number(rounds: usize) -> u32 {
    u32::try_from(rounds).unwrap_or(u32::MAX).min(limits::ROUNDS_MAX)
}
