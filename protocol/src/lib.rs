//! x
#![forbid(unsafe_code)]

pub mod control;
mod failure;
pub mod framing;
pub mod limits;
pub mod message;
pub mod pages;
pub mod stream;
pub mod version;

pub use failure::{Failure, Phase, Side};
pub use message::{Lazy, Message, MigrationId, Outcome, Refusal};
