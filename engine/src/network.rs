//! What is done to a host's network around a move, without a program of its own for it: no `nft`,
//! no `ip`, no `arping`.
//!
//! Everything here acts in the network namespace of the calling thread.

mod address;
pub mod addresses;
mod announce;
mod arrival;
mod devices;
mod knocks;
pub mod lock;
pub mod namespace;
pub(crate) mod netlink;
mod nftables;
pub(crate) mod packet;
mod routes;

pub use address::{Address, NotAnAddress, is_device_name};
pub use announce::announce;
pub use arrival::{announce_again, arrive};
pub(crate) use arrival::{ips, lacking};
pub use knocks::Knocks;
pub use lock::{Flow, Gate, Lock};
pub use namespace::{Cable, Namespace, NamespaceImage};
pub use routes::route_source;

#[cfg(test)]
mod capture;
#[cfg(test)]
mod hosts;
