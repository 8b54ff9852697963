//! Whether this host can take a tree, with every reason why not.

use crate::gate::Gate;
use crate::policy::{Place, Policy};
use crate::report;
use engine::clocks::Clocks;
use engine::host::Host;
use engine::image::decode;
use engine::inventory::{self, Inventory};
use protocol::destination::{Doing, Input};
use protocol::message::Offer;
use protocol::{Failure, Phase, Refusal};
use std::sync::Arc;

/// The judgement, and the room that was promised if nothing stands against it. Blocks: it may
/// have to read every executable of the tree.
pub fn judge(offer: &Offer, policy: &Policy, gate: Arc<Gate>) -> (Input, Option<Arc<Place>>) {
    match look(offer, policy, gate) {
        Ok((refusals, place)) => (judged(refusals), place),
        Err(failure) => (Input::Failed { doing: Doing::Judge, failure }, None),
    }
}

fn look(
    offer: &Offer,
    policy: &Policy,
    gate: Arc<Gate>,
) -> Result<(Vec<Refusal>, Option<Arc<Place>>), Failure> {
    let failed = |error| report::of_engine(Phase::Offer, &error);
    let inventory: Inventory = decode("inventory", &offer.inventory).map_err(failed)?;
    let free_bytes = Host::look().map_err(failed)?.free_memory_bytes;
    let (place, memory_bytes_max) = match policy.promise(inventory.memory_bytes, gate, free_bytes) {
        Ok((place, most)) => (place, most),
        Err(refusal) => return Ok((vec![refusal], None)),
    };
    let refusals = inventory::judge(&inventory, memory_bytes_max).map_err(failed)?;
    if refusals.is_empty() {
        return Ok((Vec::new(), Some(place)));
    }
    Ok((refusals.iter().map(spoken).collect(), None))
}

fn spoken(refusal: &engine::Refusal) -> Refusal {
    Refusal::new(refusal.object.to_string(), refusal.reason.as_str(), refusal.advice.as_str())
}

/// The clocks are read last: what passes until the source sees them is lost to the tree.
fn judged(refusals: Vec<Refusal>) -> Input {
    match Clocks::of_this_host() {
        Ok(clocks) => Input::Judged {
            refusals,
            monotonic_ns: clocks.monotonic_ns.try_into().unwrap_or(0),
            boottime_ns: clocks.boottime_ns.try_into().unwrap_or(0),
        },
        Err(error) => {
            let failure = report::of_engine(Phase::Offer, &error);
            Input::Failed { doing: Doing::Judge, failure }
        }
    }
}
