//! Gives a tree away: drives the source's machine, with the engine on one side and the link on the
//! other.
//!
//! [`session`] receives inputs, lets `protocol::source::State` decide, and has the actions done in
//! their order. The engine is synchronous and has a thread of its own ([`engine_thread`]); pages
//! go from that thread through bounded channels to one task a stream ([`page_streams`], [`bulk`]).
//! After the handover a second thread answers faults and pushes what is left ([`serving`]).

#![forbid(unsafe_code)]

mod addresses;
mod attempt;
mod audience;
mod bulk;
mod ca;
mod cables;
mod check;
mod claim;
mod cli;
mod client;
mod codec;
mod complaint;
mod connection;
mod control;
pub mod copies;
mod dump;
mod duplicate;
mod ending;
mod engine_thread;
mod events;
mod exit_code;
mod faults;
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod giving;
mod greeting;
mod hello;
mod home;
mod identity;
mod images;
mod inspection;
mod interrupt;
mod journal;
mod left_behind;
mod list;
mod listeners;
mod news;
mod outlet;
mod output;
mod pace;
mod page_streams;
mod performer;
mod place;
mod progress;
mod quick_start;
mod report;
mod restore;
mod resume;
mod run;
mod service;
mod serving;
mod session;
mod settle;
mod signals;
mod spare_ids;
mod start;
mod summary;
mod tracer;
mod trust;
mod unfinished;

pub use run::{main, serve};
