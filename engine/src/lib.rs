//! Taking a process tree apart on one host and putting it together on another.
//!
//! Synchronous throughout: ptrace answers only the thread that attached, so the agents give this
//! crate a thread of its own and talk to that thread through channels.

pub mod aspects;
pub mod batch;
pub mod descriptors;
mod error;
pub mod kinds;
mod refusal;
#[allow(unsafe_code, reason = "the one place that speaks to the kernel behind the compiler's back")]
#[allow(clippy::disallowed_methods, reason = "the one place that may")]
mod sys;

pub use error::{Error, Object, OnObject};
pub use refusal::Refusal;
