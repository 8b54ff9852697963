//! One TCP connection that carries as many bytes as it can, one way, for as long as the test likes:
//! every byte follows from its place in the stream, so one that is lost, doubled or changed is found.

mod client;
mod pattern;
mod running;
mod server;
mod visitors;

pub use client::{Client, Direction, Report};
pub use pattern::Pattern;
pub use running::{RunningClient, start_server};
pub use server::serve;
pub use visitors::visit;

/// Where the server listens.
pub const PORT: u16 = 7000;
