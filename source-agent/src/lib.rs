//! Gives a tree away: drives the source's machine, with the engine on one side and the link on the
//! other.
//!
//! [`session`] receives inputs, lets `protocol::source::State` decide, and has the actions done in
//! their order. The engine is synchronous and has a thread of its own ([`engine_thread`]); pages
//! go from that thread through bounded channels to one task a stream ([`page_streams`], [`bulk`]).
//! After the handover a second thread answers faults and pushes what is left ([`serving`]).

#![forbid(unsafe_code)]

mod attempt;
mod bulk;
mod check;
mod cli;
mod codec;
mod connection;
mod control;
mod ending;
mod engine_thread;
mod events;
mod faults;
mod giving;
mod hello;
mod inspection;
mod interrupt;
mod journal;
mod left_behind;
mod list;
mod news;
mod outlet;
mod output;
mod pace;
mod page_streams;
mod performer;
mod place;
mod progress;
mod report;
mod resume;
mod run;
mod serving;
mod session;
mod summary;

pub use run::main;
