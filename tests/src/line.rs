//! A bad line between two interfaces of a host: carries Ethernet frames both ways, late and not all.
//! TCP sees the loss of single segments, as on a real one, because whoever sends on it is told to
//! leave nothing to the interface ([`crate::hosts::far`]).

mod direction;

pub use direction::carry;

use crate::frames::Frames;
use crate::relay::Conditions;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::thread;

/// Joins two interfaces until the process ends. What is lost follows from the seed.
pub fn join(left: &str, right: &str, conditions: &Conditions, seed: u64) -> Result<()> {
    let [left, right] = [left, right].map(|name| Frames::of(name).map(Arc::new));
    let (left, right) = (left?, right?);
    thread::scope(|scope| {
        let there = scope.spawn(|| carry(&left, &right, conditions, seed));
        let back = carry(&right, &left, conditions, seed.wrapping_add(1));
        there.join().ok().context("a thread panicked")?.and(back)
    })
}
