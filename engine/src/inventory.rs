//! Looking at everything before anything is frozen.
//!
//! On the source: what the tree is, and every reason why it cannot be moved. On the destination:
//! every reason why this host cannot take it.

mod files;
mod ids;
mod memory;
mod newborn;
mod processes;
mod tracees;

use crate::aspects::{self, Privileges, Subject, read_status};
use crate::descriptors::{self, DescriptorsImage, Table};
use crate::error::{Error, Object, OnObject as _};
use crate::image::Layout;
use crate::kinds::{Findings, Note, Rules};
use crate::memory::{backing, mapping};
use crate::network::{self, Lock, namespace};
use crate::refusal::Refusal;
use crate::source;
use crate::tree::{self, Life, Process};
use nix::errno::Errno;
use std::collections::BTreeSet;

/// How often the descriptors of a running tree are looked at before they stand against its move.
const LOOKS_MAX: u32 = 5;

/// What the destination is told of the tree before it accepts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inventory {
    #[prost(message, optional, tag = "1")]
    pub layout: Option<Layout>,
    /// The objects behind descriptors, without their content.
    #[prost(message, optional, tag = "2")]
    pub outline: Option<DescriptorsImage>,
    /// Anonymous memory, resident or swapped, as [`Counting`] says.
    #[prost(uint64, tag = "3")]
    pub memory_bytes: u64,
    #[prost(uint32, tag = "4")]
    pub thread_count: u32,
    /// Programs that are executed, by path.
    #[prost(string, repeated, tag = "5")]
    pub executables: Vec<String>,
    /// Of every thread that differs from the leader of its process, and of every leader.
    #[prost(message, repeated, tag = "6")]
    pub privileges: Vec<Privileges>,
}

/// How often a page counts that several processes share, as fork(2) left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Once: they go on sharing it.
    Once,
    /// In each: the move leaves no round in which sharing could be kept.
    InEach,
}

/// The inventory, and what stands against the move. Where there are refusals before the shape of
/// the tree can be told, the inventory is not there.
#[derive(Debug, Default)]
pub struct Examined {
    pub inventory: Option<Inventory>,
    pub refusals: Vec<Refusal>,
    /// What will be different after the move, without being in its way.
    pub notes: Vec<Note>,
    /// Name and version of each kind that the destination has to know, also of those of which any
    /// host can make one.
    pub kinds: BTreeSet<(&'static str, u32)>,
}

/// Looks at the tree from outside. Nothing is stopped and nothing is changed.
pub fn examine(root: i32, rules: Rules, counting: Counting) -> Result<Examined, Error> {
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
        match look_into(process, counting, &mut inventory, &mut examined) {
            Err(error) if error.is_gone() && process.pid != root => {}
            other => other?,
        }
    }
    let pids: Vec<i32> = alive.iter().map(|process| process.pid).collect();
    let network = namespace::examine(&pids)?;
    examined.refusals.extend(network.refusals);
    // Whatever is asked of its sockets is asked where they are.
    let _inside = namespace::enter(network.namespace.as_ref())?;
    let (table, findings) = look_at_descriptors(&pids, &rules)?;
    examined.refusals.extend(findings.refusals);
    examined.notes = findings.notes;
    let needs_lock = match network.namespace {
        None => descriptors::have_connections(&table, &rules)?,
        Some(_) => !descriptors::gates(&table, &rules)?.is_empty(),
    };
    examined.refusals.extend(needs_lock.then(Lock::probe).flatten());
    if examined.refusals.is_empty() {
        let outline = descriptors::outline(&table, &rules)?;
        examined.kinds = table.kinds();
        examined
            .kinds
            .extend(network.image.is_some().then_some((namespace::NAME, namespace::VERSION)));
        let has_connections = needs_lock && network.image.is_none();
        inventory.outline = Some(newborn::without_theirs(outline, &newborn::among(&alive)?));
        let layout = source::outline(&processes)?;
        inventory.layout = Some(Layout { has_connections, network: network.image, ..layout });
        examined.inventory = Some(inventory);
    }
    Ok(examined)
}

/// A program that opens and closes meanwhile is seen in the middle of it: a descriptor that was
/// closed is still registered in an epoll that was read before. What stands against the move is
/// what every look finds.
fn look_at_descriptors(pids: &[i32], rules: &Rules) -> Result<(Table, Findings), Error> {
    let mut table = descriptors::collect(pids)?;
    let mut findings = descriptors::examine(&table, rules);
    for _ in 1..LOOKS_MAX {
        if findings.refusals.is_empty() {
            break;
        }
        table = descriptors::collect(pids)?;
        let mut again = descriptors::examine(&table, rules);
        again.refusals.retain(|refusal| findings.refusals.contains(refusal));
        findings = again;
    }
    Ok((table, findings))
}

fn look_into(
    process: &Process,
    counting: Counting,
    inventory: &mut Inventory,
    examined: &mut Examined,
) -> Result<(), Error> {
    let pid = process.pid;
    let mut mappings = mapping::read(pid)?;
    let kinds = backing::kinds(pid, &mut mappings)?;
    let mut refusals = backing::examine(pid, &mappings, &kinds);
    refusals.extend(memory::examine(pid, &mappings, &kinds));
    let tids = tree::threads(pid)?;
    inventory.thread_count += u32::try_from(tids.len()).unwrap_or(u32::MAX);
    inventory.memory_bytes += processes::memory_bytes(pid, counting)?;
    let executable = std::fs::read_link(format!("/proc/{pid}/exe"));
    let executable = executable.map(|path| path.to_string_lossy().into_owned());
    inventory.executables.extend(executable);
    let mut of_threads = Vec::new();
    for tid in tids {
        let Ok(status) = read_status(tid) else { continue };
        inventory.privileges.extend(news(pid, tid, &status, &inventory.privileges));
        let found = aspects::examine_all(&[Subject { pid, tid, status: &status }]);
        // Of a thread that ends, half is gone already: that is in nobody's way.
        of_threads.extend(found.into_iter().filter(|_| tree::is_alive(tid)));
    }
    of_threads.dedup();
    refusals.extend(of_threads);
    if !refusals.is_empty() && !tree::is_alive(pid) {
        return Err(Errno::ESRCH).on("look into", || Object::Process { pid });
    }
    examined.refusals.extend(refusals);
    Ok(())
}

/// What a thread may do, unless the leader of its process has said the same.
fn news(pid: i32, tid: i32, status: &str, known: &[Privileges]) -> Option<Privileges> {
    let new = Privileges::of_status(pid, tid, status)?;
    let said = |known: &Privileges| *known == Privileges { tid: known.tid, ..new.clone() };
    let leader = known.iter().find(|known| known.pid == pid);
    (!leader.is_some_and(said)).then_some(new)
}

/// Everything that keeps this host from taking the tree. `memory_bytes_max` is what it may take.
pub fn judge(inventory: &Inventory, memory_bytes_max: u64) -> Result<Vec<Refusal>, Error> {
    let part = || Object::Image { part: "inventory".to_owned() };
    let layout = inventory.layout.as_ref();
    let layout = layout.ok_or_else(|| Error::invalid("read the", part(), "it has no layout"))?;
    let mut refusals = ids::taken(layout)?;
    refusals.extend(files::lacking(layout, &inventory.executables));
    refusals.extend(lacking_for_descriptors(inventory, layout)?);
    refusals.extend(network::lacking(&layout.addresses)?);
    refusals.extend(layout.has_connections.then(Lock::probe).flatten());
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

/// A tree in a network namespace of its own is judged in one like it.
fn lacking_for_descriptors(inventory: &Inventory, layout: &Layout) -> Result<Vec<Refusal>, Error> {
    let Some(outline) = &inventory.outline else { return Ok(Vec::new()) };
    let Some(image) = &layout.network else {
        return descriptors::check(outline, &network::ips(&layout.addresses)?);
    };
    let (like_it, mut refusals) = namespace::judge(image)?;
    if let Some(like_it) = like_it {
        let _inside = like_it.enter()?;
        refusals.extend(descriptors::check(outline, &[])?);
    }
    Ok(refusals)
}

#[cfg(fuzzing)]
pub(crate) fn parse_all(text: &str) {
    let _ = newborn::seconds(text);
    let _ = processes::kibibytes(text, "VmRSS");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// Its children end as soon as they have begun. A few at a time: other tests need process ids.
    const CHURN: &str = "while (1) { for (1..4) { exit unless fork } \
                         select(undef, undef, undef, 0.004); 1 while waitpid(-1, 1) > 0 }";
    const LOOKS_FOR: Duration = Duration::from_secs(2);

    struct Churn(Child);

    impl Churn {
        fn start() -> Self {
            let mut perl = Command::new("perl");
            perl.args(["-e", CHURN]);
            perl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            Self(perl.spawn().unwrap())
        }
    }

    impl Drop for Churn {
        fn drop(&mut self) {
            let _ended_by_itself = self.0.kill();
            let _reaped = self.0.wait();
        }
    }

    #[test]
    fn children_that_end_while_they_are_looked_at_are_in_nobodys_way() {
        let churn = Churn::start();
        let root = churn.0.id().cast_signed();
        let end = Instant::now() + LOOKS_FOR;
        while Instant::now() < end {
            let refusals = examine(root, Rules::default(), Counting::Once).unwrap().refusals;
            assert_eq!(refusals, []);
        }
    }
}
