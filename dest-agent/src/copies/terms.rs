//! The operator's rules, held against a copy: its inventory before its original is touched, its image
//! before a process is made of it, and what it has open before it runs.

use super::words::{GO, Word};
use crate::footprint;
use crate::policy::rules::Rules;
use engine::image::{Layout, TreeImage, decode};
use engine::inventory::{self, Inventory};
use engine::{Error, Object, OnObject as _, descriptors};
use protocol::Refusal;
use source_agent::copies::Admission;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

#[derive(Debug)]
pub(super) struct Terms {
    rules: Rules,
    count: u32,
    /// That all copies may have together.
    memory_bytes_max: u64,
    /// Of the image that was judged, those that come when they are needed.
    missing_pages: AtomicU64,
}

impl Terms {
    pub(super) fn new(rules: Rules, count: u32, memory_bytes_max: u64) -> Self {
        Self { rules, count, memory_bytes_max, missing_pages: AtomicU64::default() }
    }

    /// Of an inventory that a source has sent, which has offered so much memory of each copy.
    pub(super) fn judge(&self, path: &Path, offered: u64) -> Result<Vec<Refusal>, Error> {
        let bytes =
            fs::read(path).on("read", || Object::File { path: path.display().to_string() })?;
        let mut inventory: Inventory = decode("inventory", &bytes)?;
        if let Some(outline) = &mut inventory.outline {
            descriptors::cut_off(outline)?;
        }
        let mut refusals = self.judge_inventory(&inventory)?;
        refusals.extend(more_than(offered, inventory.memory_bytes));
        // What is refused by a rule is refused for nothing else.
        let asked = self.rules.what_it_may_ask(&inventory)?;
        let found = inventory::judge(&asked, u64::MAX)?;
        refusals.extend(found.iter().map(|one| {
            Refusal::new(one.object.to_string(), one.reason.as_str(), one.advice.as_str())
        }));
        Ok(refusals)
    }

    /// Of all copies together.
    fn against_memory(&self, bytes: u64) -> Option<Refusal> {
        let (count, most) = (self.count, self.memory_bytes_max);
        let bytes = bytes.saturating_mul(count.into());
        (bytes > most).then(|| {
            let (bytes, most) = (bytes.div_ceil(1 << 20), most >> 20);
            let reason = format!(
                "has {most} MiB of memory to give, and {count} copies of the tree need {bytes} MiB"
            );
            let advice = "Choose a host with more free memory, or fewer copies.";
            Refusal::new("the destination", reason, advice)
        })
    }

    /// By what is there, and not by what was announced.
    fn against_built(&self, pids: &[i32]) -> io::Result<Option<Refusal>> {
        let missing = self.missing_pages.load(Ordering::Relaxed);
        let found = self.rules.against_memory(footprint::bytes(pids, missing));
        Ok(found.or(self.rules.against_processes(pids)?.into_iter().next()))
    }
}

impl Admission for Terms {
    fn judge_inventory(&self, inventory: &Inventory) -> Result<Vec<Refusal>, Error> {
        let mut refusals = self.rules.against_inventory(inventory)?;
        refusals.extend(inventory.layout.iter().filter_map(in_two_places));
        refusals.extend(self.against_memory(inventory.memory_bytes));
        Ok(refusals)
    }

    fn judge_image(&self, layout: &Layout, image: &TreeImage) -> Result<Vec<Refusal>, Error> {
        self.missing_pages.store(footprint::missing_pages(image), Ordering::Relaxed);
        let mut refusals = self.rules.against_layout(layout);
        refusals.extend(self.rules.against_image(image)?);
        refusals.extend(in_two_places(layout));
        Ok(refusals)
    }

    fn admit_built(&self, pids: &[i32]) -> Result<(), Error> {
        let found = self.against_built(pids).on("look at what is open in", || Object::Host)?;
        if let Some(Refusal { object, reason, .. }) = found {
            return Err(Error::invalid("admit", Object::Image { part: object }, reason.as_str()));
        }
        wait_for_the_permit().on("wait for a word to run on", || Object::Host)
    }
}

/// Nobody else than the agent may let it run. Without one there is an end of file, and no copy.
fn wait_for_the_permit() -> io::Result<()> {
    Word::Waits.say()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    match line == GO {
        true => Ok(()),
        false => Err(io::Error::other("the agent has ended, or wants it no more")),
    }
}

/// Room was promised for what was offered.
fn more_than(offered: u64, bytes: u64) -> Option<Refusal> {
    (bytes > offered).then(|| {
        let (bytes, offered) = (bytes.div_ceil(1 << 20), offered >> 20);
        let reason = format!("has {bytes} MiB of memory, and {offered} MiB of it were offered");
        Refusal::new("the tree", reason, "Ask whoever has sent it: its agent contradicts itself.")
    })
}

/// Its original keeps its addresses, and two hosts cannot have one.
fn in_two_places(layout: &Layout) -> Option<Refusal> {
    let reason = "has addresses of its own, which its original keeps";
    let advice = "Copy it on its host, or copy a tree that lives in the network of its host.";
    let has_any = layout.network.is_some() || !layout.addresses.is_empty();
    let root = layout.processes.first().map_or(0, |root| root.pid);
    has_any.then(|| Refusal::new(format!("process {root}"), reason, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn all_copies_together_have_to_have_room() {
        let terms = Terms::new(Rules::default(), 3, 30 * MIB);
        assert_eq!(terms.against_memory(10 * MIB), None);
        let refusal = terms.against_memory(10 * MIB + 1).unwrap().to_string();
        assert!(refusal.contains("has 30 MiB") && refusal.contains("need 31 MiB"), "{refusal}");
        let inventory = Inventory { memory_bytes: u64::MAX, ..Inventory::default() };
        assert_eq!(terms.judge_inventory(&inventory).unwrap().len(), 1);
    }

    #[test]
    fn an_inventory_keeps_to_what_was_offered() {
        assert_eq!(more_than(MIB, MIB), None);
        let refusal = more_than(MIB, MIB + 1).unwrap().to_string();
        assert!(refusal.contains("has 2 MiB of memory, and 1 MiB"), "{refusal}");
    }
}
