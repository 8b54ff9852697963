//! Two hosts on one machine, and what is needed to try migrations between them.
//!
//! [`hosts`] makes the hosts, with the first process of each in [`host_init`], or out of [`guests`] with
//! kernels of their own; [`workload`] runs the
//! programs that prove their own state, [`relay`] is a bad network between the hosts, [`line`] one between
//! a server and its clients, and [`peer`] a host that is not as it should be. Servers and their clients are
//! [`redis`], [`web`] and [`bulk`], and [`slow_start`] is one that is stored and brought back; [`capture`] hears what the network does. What a test must look at
//! before and after a move is a [`footprint`], what the command said is [`moved`]; a move that must not
//! happen is an [`attempt`]. How fast it all is, and how fast a peer, is asked by the [`bench`].

pub mod attempt;
pub mod bench;
pub mod build;
pub mod bulk;
pub mod capture;
mod every_workload;
pub mod faults;
pub mod footprint;
pub mod frames;
pub mod go;
pub mod guests;
pub mod heartbeat;
pub mod host_init;
pub mod hosts;
pub mod line;
pub mod moved;
pub mod on_sigterm;
pub mod peer;
pub mod place;
pub mod redis;
pub mod relay;
pub mod say;
pub mod scale;
pub mod slow_start;
pub mod soak;
pub mod stalls;
pub mod wait;
pub mod web;
pub mod witness;
pub mod workload;
