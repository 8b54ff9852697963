//! The inventory of the tree, in the words of the protocol.

use crate::hello;
use engine::inventory::{self, Examined, Inventory};
use engine::kinds::{Note, Rules};
use engine::{Error, Object};
use prost::Message as _;
use protocol::Refusal;
use protocol::source::Inspection;
use protocol::version::Offered;
use std::collections::BTreeSet;

/// What a look at the tree brought: an inspection, or everything that stands against moving it.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) outcome: Result<Inspection, Vec<Refusal>>,
    pub(crate) notes: Vec<Note>,
}

/// Looks from outside; nothing is touched. A process that does not exist is a refusal like others.
pub(crate) fn look(pid: i32, rules: Rules) -> Result<Looked, Error> {
    let Examined { inventory, refusals, notes } = match inventory::examine(pid, rules) {
        Err(error) if error.is_gone() => {
            return Ok(Looked { outcome: Err(vec![no_such_process(pid)]), notes: Vec::new() });
        }
        other => other?,
    };
    let outcome = match inventory {
        Some(inventory) if refusals.is_empty() => Ok(inspection(&inventory)),
        _ => Err(refusals.iter().map(refusal).collect()),
    };
    Ok(Looked { outcome, notes })
}

fn no_such_process(pid: i32) -> Refusal {
    let object = Object::Process { pid }.to_string();
    Refusal::new(object, "does not exist", "Name one of the processes of this host.")
}

fn refusal(refusal: &engine::Refusal) -> Refusal {
    Refusal::new(refusal.object.to_string(), &*refusal.reason, &*refusal.advice)
}

fn inspection(inventory: &Inventory) -> Inspection {
    let processes = inventory.layout.as_ref().map_or(0, |layout| layout.processes.len());
    Inspection {
        inventory: inventory.encode_to_vec().into(),
        memory_bytes: inventory.memory_bytes,
        process_count: u32::try_from(processes).unwrap_or(u32::MAX),
        thread_count: inventory.thread_count,
        kinds: kinds(inventory),
        aspects: hello::aspects(),
        refusals: Vec::new(),
    }
}

fn kinds(inventory: &Inventory) -> Vec<Offered> {
    let objects = inventory.outline.iter().flat_map(|outline| &outline.objects);
    let kinds: BTreeSet<Offered> = objects
        .map(|object| Offered { name: object.kind.clone(), version: object.version })
        .collect();
    kinds.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_exist_is_refused_by_its_number() {
        let looked = look(i32::MAX, Rules::default()).unwrap();
        let refusals = looked.outcome.unwrap_err();
        assert!(refusals[0].to_string().contains(&i32::MAX.to_string()), "{refusals:?}");
    }

    #[test]
    fn init_is_refused() {
        assert!(look(1, Rules::default()).unwrap().outcome.is_err());
    }
}
