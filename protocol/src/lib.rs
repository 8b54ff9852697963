//! The conversation between a source and a destination, with no I/O in it.
//!
//! Two machines ([`source::State`] and [`destination::State`]) take one [`Input`](source::Input) at
//! a time and answer with messages to send and actions to do, in an [`Outbox`]. They know no clock,
//! socket, thread or file, and no kernel object: what the engine captures is bytes to them. So
//! everything that can go wrong between two hosts is tried in one thread from a seed
//! (`tests/simulation`), and the pictures in `docs/` are drawn from the machines themselves.
//!
//! ```text
//!  source                                                       destination
//!  ──────                                                       ───────────
//!  Greeting      Hello ───────────────────────────────────────▶ Listening
//!                ◀─────────────────────────────────────── Hello Greeted
//!  Inspecting    every blocker that can be seen from outside
//!  Offering      Offer ───────────────────────────────────────▶ Judging
//!                ◀───────────────── Refuse (every blocker here) Declined
//!                ◀────────────────────────────── Accept (clocks) Accepting: journal
//!  Describing    journal, layout
//!  Staging       Stage (layout, clock offsets) ───────────────▶ Staging: stopped stubs, final PIDs
//!                ◀────────────────────────────────────── Staged Storing
//!  Opening     ┌ RoundBegin (layout, if it changed) ──────────▶ Receiving
//!  Copying     │ page records on every bulk stream ═══════════▶   into the stubs' memory
//!  Landing     │ RoundEnd ────────────────────────────────────▶ Landing
//!              │ ◀───────────────────────────────── RoundStored Storing
//!  Measuring   └ again, until freezing is worth it ([`convergence`])
//!  Freezing      ─ ─ ─ ─ ─ ─ ─ ─ the tree stands still ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─
//!  Finishing     RoundBegin, records, RoundEnd; Image ════════▶ Building
//!  Building      ◀─────────────────────────── RoundStored, Ready Ready: one step from running
//!  Surrendering  journal
//!  Awaiting      Handover ────────────────────────────────────▶ Deciding: journal
//!                                                               Settling: it runs
//!                ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ the tree runs ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─
//!                ◀───────────────────────────── Decided(Running) Filling
//!  Serving       pages that were stale, faults first ═════════▶
//!                PushDone ────────────────────────────────────▶
//!                ◀──────────────────────────────────── Complete Completing: journal, Complete
//!  Relieving     journal
//!  Reaping       Done ────────────────────────────────────────▶ Done
//!  Moved
//! ```
//!
//! Three rules hold through every cut and crash, and the simulation checks them after each step:
//!
//! 1. A source that recorded its surrender thaws only when the destination said `Discarded`, or an
//!    operator answers for it.
//! 2. A destination decides once, writes it down before it acts, and gives the same answer for
//!    ever. Asked about what it does not know, it decides `Discarded` first.
//! 3. The original is reaped only when the destination has every page.
//!
//! After a lost link the source comes back with `Inquire` as its first word, in whatever state; in
//! the lazy phase the answer is `Decided` and then `Missing`, the pages still to be pushed.
//!
//! On the wire there is a control stream of frames ([`framing`], [`control`], [`message`]), bulk
//! streams of page records ([`pages`]), and a connection of its own for faults ([`stream`]). Every
//! bound and every wait stands in [`limits`]; what two hosts must have in common, in [`version`].
//!
//! A tree that goes on where it is, and is copied, needs none of this: [`copies`] has the stream on
//! which its copies are started.

#![forbid(unsafe_code)]

pub mod control;
pub mod convergence;
pub mod copies;
pub mod destination;
mod failure;
pub mod framing;
pub mod limits;
mod machine;
pub mod message;
pub mod pages;
pub mod source;
pub mod stream;
pub mod version;

pub use failure::{Failure, Phase, Side};
pub use machine::{Fault, Link, Outbox, Todo};
pub use message::{Lazy, Message, MigrationId, Outcome, Refusal};
