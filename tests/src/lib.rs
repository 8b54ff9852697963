//! Two hosts on one machine, and what is needed to try migrations between them.
//!
//! [`hosts`] makes the hosts, with the first process of each in [`host_init`]; [`workload`] runs the
//! programs that prove their own state, [`relay`] is a bad network between the hosts. What a test
//! must look at before and after a move is a [`footprint`], what the command said is [`moved`].

pub mod build;
pub mod footprint;
pub mod heartbeat;
pub mod host_init;
pub mod hosts;
pub mod moved;
pub mod place;
pub mod redis;
pub mod relay;
pub mod say;
pub mod scale;
pub mod wait;
pub mod workload;
