//! A bad network: relays UDP datagrams between a listening address and one other, both ways, with
//! delay, loss, a rate, and cuts that heal. In user space, because not every kernel has netem.
//!
//! What happens to a datagram is decided by [`Path`], which knows no clock and no socket.

mod path;
mod service;

pub use path::{Conditions, Fate, Path};
pub use service::{Relay, serve};
