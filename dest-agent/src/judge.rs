//! Whether this host can take a tree, with every reason why not.

use crate::gate::Gate;
use crate::holding::Holder;
use crate::policy::file::PolicyError;
use crate::policy::rules::Rules;
use crate::policy::{Place, Policy, Wish};
use crate::report;
use crate::tree;
use engine::Object;
use engine::clocks::Clocks;
use engine::host::Host;
use engine::image::decode;
use engine::inventory::{self, Inventory};
use link::Fingerprint;
use protocol::destination::{Doing, Input};
use protocol::message::Offer;
use protocol::{Failure, Phase, Refusal};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is judged.
#[derive(Debug)]
pub struct Offered<'a> {
    pub offer: &'a Offer,
    pub peer: Fingerprint,
    /// What a CA has certified that it is called.
    pub names: Vec<String>,
    /// Everything else that is under way here.
    pub others: Vec<Holder>,
}

/// The judgement, and the room that was promised if nothing stands against it. Blocks: it may
/// have to read every executable of the tree, and to wait for a sign of life of a source.
pub fn judge(offered: Offered<'_>, policy: &Policy, gate: Arc<Gate>) -> (Input, Option<Admitted>) {
    match look(&offered, policy, gate) {
        Ok(Judgement { root, refusals, admitted, broken }) => {
            log(&offered, root, &refusals, broken.as_ref());
            (judged(refusals), admitted)
        }
        Err(failure) => (Input::Failed { doing: Doing::Judge, failure }, None),
    }
}

struct Judgement {
    /// The root process of the tree, if it has one.
    root: Option<i32>,
    refusals: Vec<Refusal>,
    admitted: Option<Admitted>,
    /// Why nobody is taken in, which is the operator's business alone.
    broken: Option<PolicyError>,
}

/// One line, with all that an operator needs who is called because of it.
fn log(
    offered: &Offered<'_>,
    root: Option<i32>,
    refusals: &[Refusal],
    broken: Option<&PolicyError>,
) {
    let migration = offered.offer.migration;
    let source = name_of(&offered.peer, &offered.names);
    let root = root.unwrap_or(0);
    if let Some(error) = broken {
        let chain = report::chain(error);
        tracing::error!(%migration, %source, root, "refused, as nobody may send here: {chain}");
    } else if refusals.is_empty() {
        tracing::info!(%migration, %source, root, "accepted");
    } else {
        let reasons: Vec<String> = refusals.iter().map(one_line).collect();
        tracing::warn!(%migration, %source, root, "refused: {}", reasons.join("; "));
    }
}

/// What is in it may have been chosen by the source.
pub fn one_line(refusal: &Refusal) -> String {
    let text = format!("{} {}", refusal.object, refusal.reason);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A source by the names that a CA has certified, and by its key.
pub fn name_of(peer: &Fingerprint, names: &[String]) -> String {
    match names.is_empty() {
        true => peer.to_string(),
        false => format!("{} ({peer})", names.join(", ")),
    }
}

/// The room that was promised to a tree, and the rules that it must keep to.
#[derive(Debug)]
pub struct Admitted {
    pub place: Arc<Place>,
    pub rules: Rules,
}

fn look(offered: &Offered<'_>, policy: &Policy, gate: Arc<Gate>) -> Result<Judgement, Failure> {
    let failed = |error| report::of_engine(Phase::Offer, &error);
    let inventory: Inventory = decode("inventory", &offered.offer.inventory).map_err(failed)?;
    let root = inventory.layout.as_ref().and_then(|layout| Some(layout.processes.first()?.pid));
    let rules = match policy.rules(&offered.peer, &offered.names) {
        Ok(rules) => rules,
        Err(error) => {
            let (refusals, broken) = (vec![no_policy()], Some(error));
            return Ok(Judgement { root, refusals, admitted: None, broken });
        }
    };
    let mut found = rules.against_inventory(&inventory).map_err(failed)?;
    let wanted: BTreeSet<i32> = inventory.layout.iter().flat_map(tree::every_id).collect();
    let rivals: Vec<&Holder> =
        offered.others.iter().filter(|other| other.has_any(&wanted)).collect();
    rivals.iter().for_each(|rival| rival.clear_away(offered.peer));
    let free_bytes = Host::look().map_err(failed)?.free_memory_bytes;
    let memory_bytes = inventory.memory_bytes;
    let wish = Wish { memory_bytes, gate, peer: offered.peer, trees_max: rules.trees_max };
    let promised = policy.promise(wish, free_bytes);
    let memory_bytes_max = promised.as_ref().map_or(free_bytes, |(_, most)| *most);
    let asked = rules.what_it_may_ask(&inventory).map_err(failed)?;
    let refusals = inventory::judge(&asked, memory_bytes_max).map_err(failed)?;
    found.extend(refusals.iter().map(|refusal| spoken(refusal, &rivals, offered.peer)));
    let admitted = match promised {
        Ok((place, _)) if found.is_empty() => Some(Admitted { place, rules }),
        Ok(_) => None,
        Err(refusal) => {
            found.push(refusal);
            None
        }
    };
    Ok(Judgement { root, refusals: found, admitted, broken: None })
}

/// The source's operator cannot mend it; the destination's reads the whole of it in the log.
pub fn no_policy() -> Refusal {
    let reason = "cannot read its policy, and takes nothing in without it";
    Refusal::new("the destination", reason, "Ask its operator to look into its log.")
}

/// An id that is taken by a migration is taken for a reason that the operator can look up.
fn spoken(refusal: &engine::Refusal, rivals: &[&Holder], peer: Fingerprint) -> Refusal {
    if let Object::Process { pid } = refusal.object
        && let Some(rival) = rivals.iter().find(|rival| rival.has_any(&BTreeSet::from([pid])))
    {
        let (reason, advice) = rival.reason(peer);
        return Refusal::new(refusal.object.to_string(), reason, advice);
    }
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
