//! Taking a process tree apart on one host and putting it together on another.
//!
//! Synchronous throughout: ptrace answers only the thread that attached, so the agents give this
//! crate a thread of its own and talk to that thread through channels.

mod arch;
pub mod aspects;
pub mod batch;
pub mod capture;
pub mod cgroup;
pub mod clocks;
pub mod descriptors;
mod error;
pub mod failure_point;
pub mod features;
pub mod freeze;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod heap;
pub mod hooks;
pub mod host;
pub mod image;
pub mod inventory;
pub mod kinds;
pub mod memory;
pub mod network;
mod paths;
pub mod priority;
pub mod puppet;
mod refusal;
pub mod restore;
pub mod source;
mod spread;
pub mod stage;
mod stopwatch;
#[allow(unsafe_code, reason = "the one place that speaks to the kernel behind the compiler's back")]
#[allow(clippy::disallowed_methods, reason = "the one place that may")]
mod sys;
pub mod tracee;
pub mod tree;

pub use error::{Error, Object, OnObject};
pub use refusal::Refusal;

#[cfg(test)]
mod asleep;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod skipped;
