//! x
#![forbid(unsafe_code)]

pub mod control;
pub mod convergence;
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
