//! Servers of web pages that everybody knows, and `wrk`, which asks them for one as fast as it can.

mod asker;
mod servers;
mod tcp_counters;

pub use asker::{Asker, CONNECTIONS};
pub use servers::{Page, go, nginx, node};
pub use tcp_counters::tcp_counter;

/// Where they listen, nginx with TLS at the second one.
pub const PORT: u16 = 8080;
pub const TLS_PORT: u16 = 8443;
