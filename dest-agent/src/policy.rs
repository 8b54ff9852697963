//! What an authorised source may do here, and no more.

use crate::gate::Gate;
use protocol::Refusal;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The operator's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Trees on their way here at once. Each costs two network windows: 24 MiB at most.
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
    places: Mutex<Vec<Weak<Place>>>,
}

/// Room promised to a tree that is on its way; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    memory_bytes: u64,
    gate: Arc<Gate>,
}

impl Policy {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, places: Mutex::default() }
    }

    /// Promises room for one more tree, and says how much memory it may take. `free_bytes`: what
    /// the host could give at this moment.
    pub fn promise(
        &self,
        memory_bytes: u64,
        gate: Arc<Gate>,
        free_bytes: u64,
    ) -> Result<(Arc<Place>, u64), Refusal> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| place.strong_count() > 0);
        let taken: Vec<Arc<Place>> = places.iter().filter_map(Weak::upgrade).collect();
        if taken.len() >= self.bounds.trees_max {
            return Err(too_many(taken.len()));
        }
        let promised: u64 = taken.iter().map(|place| place.still_to_come()).sum();
        let kept = promised.saturating_add(self.bounds.reserve_bytes);
        let place = Arc::new(Place { memory_bytes, gate });
        places.push(Arc::downgrade(&place));
        Ok((place, free_bytes.saturating_sub(kept)))
    }
}

impl Place {
    /// What has landed is no longer free and must not be counted twice.
    fn still_to_come(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.gate.stored_bytes())
    }
}

fn too_many(taken: usize) -> Refusal {
    let reason = format!("takes in {taken} trees already, and no more at once");
    Refusal::new("the destination", reason, "Wait until one of them has arrived.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn policy(trees_max: usize) -> Policy {
        Policy::new(Bounds { trees_max, reserve_bytes: 10 * MIB })
    }

    fn promise(policy: &Policy) -> Result<(Arc<Place>, u64), Refusal> {
        policy.promise(30 * MIB, Arc::default(), 100 * MIB)
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
        let _first = policy.promise(30 * MIB, Arc::clone(&gate), 100 * MIB).unwrap();
        gate.count(20 * MIB / 4096);
        assert_eq!(promise(&policy).unwrap().1, 80 * MIB);
    }

    #[test]
    fn one_tree_too_many_is_refused_until_another_has_left() {
        let policy = policy(1);
        let first = promise(&policy).unwrap();
        assert!(promise(&policy).unwrap_err().reason.contains("takes in 1 trees already"));
        drop(first);
        assert!(promise(&policy).is_ok());
    }
}
