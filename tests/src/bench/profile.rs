//! A profile of the wire: what the link between two hosts carries as plain TCP, as the bare link of the
//! agents, and as the pages of a move, on each [`Road`]; and how long a program waits for a page that comes
//! after it.
//!
//! Both ends of everything keep to the half of the processors that the agents keep to while they copy: what
//! is beside each other was done with the same processors.

mod ends;
mod late;
mod road;
mod row;
mod shown;
mod stream;

pub use ends::{keep_to_half, link_flood, link_sink};
pub use shown::{markdown as wire_markdown, text as wire_text};

use super::in_one_line;
use super::machine::Machine;
use anyhow::{Result, ensure};
use late::Late;
use row::Row;
use serde::{Deserialize, Serialize};

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct WirePlan {
    pub runs: u32,
    /// What is carried by a road as fast as the machine is. Less by a slower one.
    pub mib: u32,
    /// Only what has one of these in its name; everything when there is none.
    pub names: Vec<String>,
}

impl WirePlan {
    /// An error when nothing would be measured, with the names that there are.
    pub fn check(&self) -> Result<()> {
        let names = row::all().map(|(road, carrier)| row::name(road, carrier));
        let names: Vec<String> = names.chain([late::NAME.to_owned()]).collect();
        let nothing =
            || format!("nothing is called {:?}; there are: {}", self.names, names.join("; "));
        ensure!(names.iter().any(|name| self.wants(name)), nothing());
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    pub machine: Machine,
    pub runs: u32,
    pub rows: Vec<Row>,
    pub late: Late,
}

/// `tell` hears what is being done, `keep` all that there is after every row.
pub fn profile(
    plan: &WirePlan,
    tell: impl Fn(&str),
    mut keep: impl FnMut(&Profile) -> Result<()>,
) -> Result<Profile> {
    let late = Late::default();
    let mut profile =
        Profile { machine: Machine::look()?, runs: plan.runs, rows: Vec::new(), late };
    for (road, carrier) in row::all() {
        if plan.wants(&row::name(road, carrier)) {
            profile.rows.push(row::measure(road, carrier, plan, &tell));
            profile.machine.look_at_load()?;
            keep(&profile)?;
        }
    }
    if plan.wants(late::NAME) {
        profile.late = Late::measure(plan, &tell);
    }
    keep(&profile)?;
    Ok(profile)
}

impl Profile {
    /// All of them.
    pub fn failures(&self) -> impl Iterator<Item = &String> {
        self.rows.iter().flat_map(|row| &row.failures).chain(&self.late.failures)
    }
}
