//! What an authorised source may do here, and no more.

mod capabilities;
pub mod file;
mod makers;
mod places;
pub mod rules;

use crate::gate::Gate;
use file::PolicyError;
use link::Fingerprint;
use protocol::Refusal;
use rules::Rules;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The operator's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Trees on their way here at once. Each costs two network windows: 17 MiB at most, and up to three
    /// times as much in the packets that they came in.
    pub trees_max: usize,
    /// Memory in bytes that arriving trees must leave free, as MemAvailable counts it.
    pub reserve_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { trees_max: 16, reserve_bytes: 64 << 20 }
    }
}

/// The bounds, and what is promised within them.
#[derive(Debug)]
pub struct Policy {
    bounds: Bounds,
    /// Where the file with the operator's rules is.
    config: PathBuf,
    places: Mutex<Vec<Weak<Place>>>,
}

/// Room promised to a tree that is on its way; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    memory_bytes: u64,
    peer: Fingerprint,
    gate: Arc<Gate>,
}

impl Policy {
    pub fn new(bounds: Bounds, config: PathBuf) -> Self {
        Self { bounds, config, places: Mutex::default() }
    }

    /// Where this host keeps its key, its policy and its hooks.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// What this source may bring, as the file says at this moment. `names`: those that a CA has
    /// certified for it.
    pub fn rules(&self, peer: &Fingerprint, names: &[String]) -> Result<Rules, PolicyError> {
        file::rules(&self.config, peer, names)
    }

    /// Promises room for one more tree, and says how much memory it may take. `free_bytes`: what
    /// the host could give at this moment.
    pub fn promise(&self, wish: Wish, free_bytes: u64) -> Result<(Arc<Place>, u64), Refusal> {
        let Wish { memory_bytes, gate, peer, trees_max } = wish;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| place.strong_count() > 0);
        let taken: Vec<Arc<Place>> = places.iter().filter_map(Weak::upgrade).collect();
        if taken.len() >= self.bounds.trees_max {
            return Err(too_many(taken.len(), self.bounds.trees_max, "in all"));
        }
        let theirs = taken.iter().filter(|place| place.peer == peer).count();
        if theirs >= trees_max {
            return Err(too_many(theirs, trees_max, "of this source"));
        }
        let promised: u64 = taken.iter().map(|place| place.still_to_come()).sum();
        let kept = promised.saturating_add(self.bounds.reserve_bytes);
        let place = Arc::new(Place { memory_bytes, peer, gate });
        places.push(Arc::downgrade(&place));
        Ok((place, free_bytes.saturating_sub(kept)))
    }
}

/// What a tree that is offered would need.
#[derive(Debug)]
pub struct Wish {
    pub memory_bytes: u64,
    pub gate: Arc<Gate>,
    pub peer: Fingerprint,
    /// Of its source, by the rules.
    pub trees_max: usize,
}

impl Place {
    /// What has landed is no longer free and must not be counted twice.
    fn still_to_come(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.gate.stored_bytes())
    }
}

fn too_many(taken: usize, most: usize, whose: &str) -> Refusal {
    if most == 0 {
        let reason = format!("takes in no trees {whose}");
        return Refusal::new("the destination", reason, "Ask its operator to allow some.");
    }
    let reason = format!("takes in {taken} trees {whose} already, and no more at once");
    Refusal::new("the destination", reason, "Wait until one of them has arrived.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn policy(trees_max: usize) -> Policy {
        Policy::new(Bounds { trees_max, reserve_bytes: 10 * MIB }, PathBuf::new())
    }

    fn promise(policy: &Policy) -> Result<(Arc<Place>, u64), Refusal> {
        policy.promise(wish('A', Arc::default()), 100 * MIB)
    }

    fn wish(source: char, gate: Arc<Gate>) -> Wish {
        let peer = format!("SHA256:{}A", source.to_string().repeat(42)).parse().unwrap();
        Wish { memory_bytes: 30 * MIB, gate, peer, trees_max: 2 }
    }

    #[test]
    fn a_source_that_brings_too_many_leaves_room_for_others() {
        let policy = policy(9);
        let _places = [promise(&policy).unwrap(), promise(&policy).unwrap()];
        let refused = promise(&policy).unwrap_err();
        assert!(refused.reason.contains("takes in 2 trees of this source already"), "{refused}");
        assert!(policy.promise(wish('B', Arc::default()), 100 * MIB).is_ok());
    }

    #[test]
    fn a_source_that_may_bring_none_is_not_told_to_wait() {
        let wish = Wish { trees_max: 0, ..wish('A', Arc::default()) };
        let refused = policy(9).promise(wish, 100 * MIB).unwrap_err();
        assert!(refused.reason.ends_with("takes in no trees of this source"), "{refused}");
        assert!(!refused.advice.contains("Wait"), "{refused}");
    }

    #[test]
    fn what_was_promised_to_one_is_not_promised_to_the_next() {
        let policy = policy(3);
        let (_first, for_first) = promise(&policy).unwrap();
        assert_eq!(for_first, 90 * MIB);
        let (_second, for_second) = promise(&policy).unwrap();
        assert_eq!(for_second, 60 * MIB);
    }

    #[test]
    fn what_has_landed_is_not_counted_twice() {
        let policy = policy(3);
        let gate = Arc::new(Gate::default());
        let _first = policy.promise(wish('A', Arc::clone(&gate)), 100 * MIB).unwrap();
        gate.count(20 * MIB / 4096);
        assert_eq!(promise(&policy).unwrap().1, 80 * MIB);
    }

    #[test]
    fn one_tree_too_many_is_refused_until_another_has_left() {
        let policy = policy(1);
        let first = promise(&policy).unwrap();
        assert!(promise(&policy).unwrap_err().reason.contains("takes in 1 trees in all already"));
        drop(first);
        assert!(promise(&policy).is_ok());
    }
}
