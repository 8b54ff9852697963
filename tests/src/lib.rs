//! Two hosts on one machine, and what is needed to try migrations between them.
//!
//! [`hosts`] makes the hosts, with the first process of each in [`host_init`]; what a test must look
//! at before and after a move is a [`footprint`], what the command said about it is [`moved`].

pub mod footprint;
pub mod host_init;
pub mod hosts;
pub mod moved;
pub mod place;
pub mod scale;
pub mod skip;
pub mod wait;
