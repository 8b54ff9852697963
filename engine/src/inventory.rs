//! Looking at everything before anything is frozen.
//!
//! On the source: what the tree is, and every reason why it cannot be moved. On the destination:
//! every reason why this host cannot take it.

mod files;
mod memory;
mod newborn;
mod processes;

use crate::aspects::{self, Subject, read_status};
use crate::descriptors::{self, DescriptorsImage};
use crate::error::{Error, Object};
use crate::image::Layout;
use crate::kinds::{Note, Rules};
use crate::memory::{backing, mapping};
use crate::refusal::Refusal;
use crate::source;
use crate::tree::{self, Life, Process};
use std::path::Path;

/// What the destination is told of the tree before it accepts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inventory {
    #[prost(message, optional, tag = "1")]
    pub layout: Option<Layout>,
    /// The objects behind descriptors, without their content.
    #[prost(message, optional, tag = "2")]
    pub outline: Option<DescriptorsImage>,
    /// Anonymous memory, resident or swapped.
    #[prost(uint64, tag = "3")]
    pub memory_bytes: u64,
    #[prost(uint32, tag = "4")]
    pub thread_count: u32,
    /// Programs that are executed, by path.
    #[prost(string, repeated, tag = "5")]
    pub executables: Vec<String>,
}

/// The inventory, and what stands against the move. Where there are refusals before the shape of
/// the tree can be told, the inventory is not there.
#[derive(Debug, Default)]
pub struct Examined {
    pub inventory: Option<Inventory>,
    pub refusals: Vec<Refusal>,
    /// What will be different after the move, without being in its way.
    pub notes: Vec<Note>,
}

/// Looks at the tree from outside. Nothing is stopped and nothing is changed.
pub fn examine(root: i32, rules: Rules) -> Result<Examined, Error> {
    let processes = match Process::read(root)? {
        // Its children are kernel threads as well, and each would be refused.
        thread if thread.is_kernel_thread() => vec![thread],
        _ => tree::walk(root)?,
    };
    let mut examined = Examined::default();
    examined.refusals.extend(processes::examine_root(&processes[0]));
    examined.refusals.extend(processes::examine(&processes)?);
    if !examined.refusals.is_empty() {
        // A kernel thread has no memory, and a traced process cannot be looked into.
        return Ok(examined);
    }
    let alive: Vec<&Process> = processes.iter().filter(|p| p.life != Life::Zombie).collect();
    let mut inventory = Inventory::default();
    for process in &alive {
        match look_into(process, &mut inventory, &mut examined) {
            Err(error) if error.is_gone() && process.pid != root => {}
            other => other?,
        }
    }
    let pids: Vec<i32> = alive.iter().map(|process| process.pid).collect();
    let table = descriptors::collect(&pids)?;
    let findings = descriptors::examine(&table, &rules);
    examined.refusals.extend(findings.refusals);
    examined.notes = findings.notes;
    if examined.refusals.is_empty() {
        let outline = descriptors::outline(&table, &rules)?;
        inventory.outline = Some(newborn::without_theirs(outline, &newborn::among(&alive)?));
        inventory.layout = Some(source::outline(&processes)?);
        examined.inventory = Some(inventory);
    }
    Ok(examined)
}

fn look_into(
    process: &Process,
    inventory: &mut Inventory,
    examined: &mut Examined,
) -> Result<(), Error> {
    let pid = process.pid;
    let mappings = mapping::read(pid)?;
    examined.refusals.extend(backing::examine(pid, &mappings)?);
    examined.refusals.extend(memory::examine(pid, &mappings)?);
    let tids = tree::threads(pid)?;
    inventory.thread_count += u32::try_from(tids.len()).unwrap_or(u32::MAX);
    inventory.memory_bytes += processes::memory_bytes(pid)?;
    let executable = std::fs::read_link(format!("/proc/{pid}/exe"));
    let executable = executable.map(|path| path.to_string_lossy().into_owned());
    inventory.executables.extend(executable);
    let mut refusals = Vec::new();
    for tid in tids {
        let Ok(status) = read_status(tid) else { continue };
        refusals.extend(aspects::examine_all(&[Subject { pid, tid, status: &status }]));
    }
    refusals.dedup();
    examined.refusals.extend(refusals);
    Ok(())
}

/// Everything that keeps this host from taking the tree. `memory_bytes_max` is what it may take.
pub fn judge(inventory: &Inventory, memory_bytes_max: u64) -> Result<Vec<Refusal>, Error> {
    let part = || Object::Image { part: "inventory".to_owned() };
    let layout = inventory.layout.as_ref();
    let layout = layout.ok_or_else(|| Error::invalid("read the", part(), "it has no layout"))?;
    let mut refusals = ids_taken(layout);
    refusals.extend(files::lacking(layout, &inventory.executables));
    if let Some(outline) = &inventory.outline {
        refusals.extend(descriptors::check(outline)?);
    }
    if inventory.memory_bytes > memory_bytes_max {
        refusals.push(Refusal {
            object: Object::Host,
            reason: format!(
                "has {} MiB of memory to give, and the tree needs {} MiB",
                memory_bytes_max >> 20,
                inventory.memory_bytes >> 20
            ),
            advice: "Choose a host with more free memory.".to_owned(),
        });
    }
    Ok(refusals)
}

/// Ids that are in use here; those of sessions and groups that are led from outside of the tree
/// as well, because they are founded anew.
fn ids_taken(layout: &Layout) -> Vec<Refusal> {
    let own: std::collections::BTreeSet<i32> = layout.ids().collect();
    let foreign = layout.processes.iter().flat_map(|p| [p.sid, p.pgid]);
    let wanted: std::collections::BTreeSet<i32> =
        own.iter().copied().chain(foreign.filter(|&id| id != 0)).collect();
    wanted
        .into_iter()
        .filter(|id| Path::new(&format!("/proc/{id}")).exists())
        .map(|pid| Refusal {
            object: Object::Process { pid },
            reason: "exists on the destination already".to_owned(),
            advice: "Choose another destination, or end that process.".to_owned(),
        })
        .collect()
}
