//! The operator's rules, held against a copy: its inventory before its original is touched, its image
//! before a process is made of it, and what it has open before it runs.

use super::words::{GO, Word};
use crate::policy::rules::Rules;
use engine::image::{Layout, TreeImage, decode};
use engine::inventory::{self, Inventory};
use engine::{Error, Object, OnObject as _, descriptors};
use protocol::Refusal;
use source_agent::copies::Admission;
use std::path::Path;
use std::{fs, io};

#[derive(Debug)]
pub(super) struct Terms {
    pub(super) rules: Rules,
}

impl Terms {
    /// Of an inventory that a source has sent, for so many copies.
    pub(super) fn judge(
        &self,
        path: &Path,
        count: u32,
        memory_bytes_max: u64,
    ) -> Result<Vec<Refusal>, Error> {
        let bytes =
            fs::read(path).on("read", || Object::File { path: path.display().to_string() })?;
        let mut inventory: Inventory = decode("inventory", &bytes)?;
        if let Some(outline) = &mut inventory.outline {
            descriptors::cut_off(outline)?;
        }
        let mut refusals = self.judge_inventory(&inventory)?;
        // What is refused by a rule is refused for nothing else.
        let mut asked = self.rules.what_it_may_ask(&inventory)?;
        asked.memory_bytes = asked.memory_bytes.saturating_mul(count.into());
        let found = inventory::judge(&asked, memory_bytes_max)?;
        refusals.extend(found.iter().map(|one| {
            Refusal::new(one.object.to_string(), one.reason.as_str(), one.advice.as_str())
        }));
        Ok(refusals)
    }
}

impl Admission for Terms {
    fn judge_inventory(&self, inventory: &Inventory) -> Result<Vec<Refusal>, Error> {
        let mut refusals = self.rules.against_inventory(inventory)?;
        refusals.extend(inventory.layout.iter().filter_map(in_two_places));
        Ok(refusals)
    }

    fn judge_image(&self, layout: &Layout, image: &TreeImage) -> Result<Vec<Refusal>, Error> {
        let mut refusals = self.rules.against_layout(layout);
        refusals.extend(self.rules.against_image(image)?);
        refusals.extend(in_two_places(layout));
        Ok(refusals)
    }

    fn admit_built(&self, pids: &[i32]) -> Result<(), Error> {
        let found = self.rules.against_processes(pids);
        let found = found.on("look at what is open in", || Object::Host)?;
        if let Some(Refusal { object, reason, .. }) = found.first() {
            let part = Object::Image { part: object.clone() };
            return Err(Error::invalid("admit", part, reason.as_str()));
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

/// Its original keeps its addresses, and two hosts cannot have one.
fn in_two_places(layout: &Layout) -> Option<Refusal> {
    let reason = "has addresses of its own, which its original keeps";
    let advice = "Copy it on its host, or copy a tree that lives in the network of its host.";
    let has_any = layout.network.is_some() || !layout.addresses.is_empty();
    let root = layout.processes.first().map_or(0, |root| root.pid);
    has_any.then(|| Refusal::new(format!("process {root}"), reason, advice))
}
