//! Takes process trees in: the destination's side of a migration.
//!
//! [`protocol::destination::State`] decides everything. A [`session`] feeds it what comes from the
//! source, from the engine and from the clock, and does what it answers. What is done stands in a
//! file of its own: the [`control`] stream, the [`bulk`] streams with their [`gate`], the
//! [`faults`], the [`lazy`] phase, the [`journal`], and the thread on which the engine works
//! ([`engine_thread`]). [`copies`] of a tree that stays need no machine: they are started from an image.

#![forbid(unsafe_code)]

pub mod arrivals;
pub mod bulk;
pub mod cli;
pub mod control;
pub mod copies;
pub mod engine_thread;
pub mod faults;
mod footprint;
pub mod gate;
pub mod hello;
pub mod holding;
pub mod journal;
pub mod judge;
pub mod lazy;
pub mod left;
pub mod listen;
pub mod policy;
pub mod registry;
pub mod report;
pub mod scope;
pub mod session;
pub mod showing;
pub mod strangers;
pub mod tree;
