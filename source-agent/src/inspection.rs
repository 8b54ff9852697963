//! The inventory of the tree, in the words of the protocol.

use crate::cli::Moving;
use crate::{addresses, hello};
use engine::inventory::{self, Counting, Examined, Inventory};
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
/// `moving`: what moves with it.
pub(crate) fn look(
    pid: i32,
    rules: Rules,
    counting: Counting,
    moving: Moving,
) -> Result<Looked, Error> {
    let Examined { mut inventory, mut refusals, mut notes, kinds } =
        match inventory::examine(pid, rules, counting) {
            Err(error) if error.is_gone() => {
                return Ok(Looked { outcome: Err(vec![no_such_process(pid)]), notes: Vec::new() });
            }
            other => other?,
        };
    let Moving { addresses, bridges } = moving;
    refusals.extend(addresses::examine(&addresses, None)?);
    if let Some(found) = &mut inventory {
        let plugged = plug(found, pid, &bridges);
        refusals.extend(plugged.0);
        notes.extend(plugged.1);
    }
    let outcome = match inventory {
        Some(mut inventory) if refusals.is_empty() => {
            inventory.layout.get_or_insert_default().addresses = addresses;
            Ok(inspection(&inventory, &kinds))
        }
        _ => Err(refusals.iter().map(refusal).collect()),
    };
    Ok(Looked { outcome, notes })
}

/// Which bridges of the destination its network namespace goes to, if it has one of its own.
fn plug(
    inventory: &mut Inventory,
    pid: i32,
    bridges: &[String],
) -> (Vec<engine::Refusal>, Vec<Note>) {
    match inventory.layout.as_mut().and_then(|layout| layout.network.as_mut()) {
        Some(network) => {
            let refusals = network.plug_into(bridges);
            let notes = network.bridges().map(|(device, bridge)| plugged(pid, device, bridge));
            (refusals, notes.collect())
        }
        None if bridges.is_empty() => (Vec::new(), Vec::new()),
        None => (vec![no_cables(pid)], Vec::new()),
    }
}

fn plugged(pid: i32, device: &str, bridge: &str) -> Note {
    let text =
        format!("moves with its network namespace; {device} goes to the bridge {bridge} there");
    Note { object: Object::Process { pid }, text }
}

fn no_cables(pid: i32) -> engine::Refusal {
    engine::Refusal {
        object: Object::Process { pid },
        reason: "lives in the network of this host, and has no cable to a bridge".to_owned(),
        advice: "Leave `--bridge` out; an address moves with `--address`.".to_owned(),
    }
}

fn no_such_process(pid: i32) -> Refusal {
    let object = Object::Process { pid }.to_string();
    Refusal::new(object, "does not exist", "Name one of the processes of this host.")
}

pub(crate) fn refusal(refusal: &engine::Refusal) -> Refusal {
    Refusal::new(refusal.object.to_string(), &*refusal.reason, &*refusal.advice)
}

fn inspection(inventory: &Inventory, kinds: &BTreeSet<(&'static str, u32)>) -> Inspection {
    let offered = |&(name, version): &(&str, u32)| Offered { name: name.to_owned(), version };
    let processes = inventory.layout.as_ref().map_or(0, |layout| layout.processes.len());
    Inspection {
        inventory: inventory.encode_to_vec().into(),
        memory_bytes: inventory.memory_bytes,
        process_count: u32::try_from(processes).unwrap_or(u32::MAX),
        thread_count: inventory.thread_count,
        kinds: kinds.iter().map(offered).collect(),
        aspects: hello::aspects(),
        refusals: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_exist_is_refused_by_its_number() {
        let looked = look(i32::MAX, Rules::default(), Counting::Once, Moving::default()).unwrap();
        let refusals = looked.outcome.unwrap_err();
        assert!(refusals[0].to_string().contains(&i32::MAX.to_string()), "{refusals:?}");
    }

    #[test]
    fn init_is_refused() {
        assert!(
            look(1, Rules::default(), Counting::Once, Moving::default()).unwrap().outcome.is_err()
        );
    }
}
