//! What must hold of a layout before anything is built from it: it may come from a hostile host.
//!
//! Everything is looked at here, before the first stub is made, so that what is refused leaves
//! nothing behind. What only the kernel can judge (a session that cannot be had, an id that is
//! taken) fails while the shell is built, and the shell is killed for it.

use crate::error::{Error, Object};
use crate::image::copied::is_of_file;
use crate::image::{Layout, ProcessLayout};
use crate::memory::mapping_image::{BackingImage, MappingImage, SpecialImage};
use std::collections::{BTreeMap, BTreeSet};

/// Far above every tree that was ever worth moving, and below what could hurt the host.
const PROCESSES_MAX: usize = 1 << 14;
const THREADS_MAX: usize = 1 << 17;
/// The highest that vm.max_map_count is set to in practice; the default is 65,530.
const MAPPINGS_MAX: usize = 1 << 20;
/// Generations under the root. Stubs are made parent by parent, and each takes some stack.
const GENERATIONS_MAX: usize = 128;
/// What fs.nr_open is by default: no table of descriptors is longer.
const DESCRIPTORS_MAX: u32 = 1 << 20;

/// User space ends one page below 2^47 with four-level page tables, and 2^56 with five.
const USER_SPACE_END: u64 = (1 << 56) - 4096;
/// Where every x86-64 process has it, if it has one.
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;
/// A foreign vdso needs this much room before it.
const VDSO_START_MIN: u64 = 2 << 20;

pub(crate) fn check(layout: &Layout) -> Result<(), Error> {
    let first = layout.processes.first();
    first.ok_or_else(|| wrong("the layout".to_owned(), "has no process"))?;
    counts(layout)?;
    ids(layout)?;
    spaces(layout)?;
    generations(layout)?;
    layout.processes.iter().try_for_each(process)
}

fn counts(layout: &Layout) -> Result<(), Error> {
    let threads: usize = layout.processes.iter().map(|process| process.tids.len()).sum();
    let mappings: usize = layout.processes.iter().map(|process| process.mappings.len()).sum();
    let counted = [
        ("processes", layout.processes.len(), PROCESSES_MAX),
        ("threads", threads, THREADS_MAX),
        ("mappings", mappings, MAPPINGS_MAX),
    ];
    match counted.into_iter().find(|(_, count, max)| count > max) {
        None => Ok(()),
        Some((what, count, max)) => {
            let why = format!("has {count} {what}, and {max} are the most that can be staged");
            Err(wrong("the layout".to_owned(), why))
        }
    }
}

/// Parents come before their children, and nothing has the id of something else.
fn ids(layout: &Layout) -> Result<(), Error> {
    let (mut pids, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for process in &layout.processes {
        let name = || format!("process {}", process.pid);
        if pids.is_empty() == pids.contains(&process.ppid) {
            return Err(wrong(name(), "comes before its parent, or has none"));
        }
        pids.insert(process.pid);
        if process.pid < 2 || !ids.insert(process.pid) {
            return Err(wrong(name(), "has an id that is impossible, or that stands in it twice"));
        }
        if process.pgid < 0 || process.sid < 0 {
            return Err(wrong(name(), "has a process group or session that cannot be"));
        }
        for tid in process.tids.iter().filter(|&&tid| tid != process.pid) {
            if *tid < 2 || !ids.insert(*tid) {
                let thread = format!("thread {tid} of process {}", process.pid);
                return Err(wrong(
                    thread,
                    "has an id that is impossible, or that stands in it twice",
                ));
            }
        }
    }
    Ok(())
}

fn spaces(layout: &Layout) -> Result<(), Error> {
    let mut spaces = BTreeSet::new();
    let living = layout.processes.iter().filter(|process| !process.is_zombie);
    let shared = layout.shared.iter().map(|shared| shared.space);
    for space in living.map(|process| process.space).chain(shared) {
        let name = || format!("space {space}");
        if !spaces.insert(space) {
            return Err(wrong(name(), "is the number of two address spaces"));
        }
        if is_of_file(space) {
            return Err(wrong(name(), "has a number that only the content of a file has"));
        }
    }
    Ok(())
}

fn generations(layout: &Layout) -> Result<(), Error> {
    let mut generation: BTreeMap<i32, usize> = BTreeMap::new();
    for process in &layout.processes {
        let own = generation.get(&process.ppid).map_or(0, |parent| parent + 1);
        if own > GENERATIONS_MAX {
            let why = format!("is more than {GENERATIONS_MAX} generations below the root");
            return Err(wrong(format!("process {}", process.pid), why));
        }
        generation.insert(process.pid, own);
    }
    Ok(())
}

fn process(process: &ProcessLayout) -> Result<(), Error> {
    let name = || format!("process {}", process.pid);
    if process.descriptors_end > DESCRIPTORS_MAX {
        let why = format!("has a descriptor {}, beyond every limit", process.descriptors_end - 1);
        return Err(wrong(name(), why));
    }
    if process.is_zombie {
        return Ok(());
    }
    let vdsos = process.mappings.iter().filter(|mapping| is(mapping, SpecialImage::Vdso));
    if vdsos.count() > 1 {
        return Err(wrong(name(), "has two of the kernel's vdso"));
    }
    mappings(process)
}

/// Sorted, aligned, apart, and inside of user space; the kernel's own pages among them.
fn mappings(process: &ProcessLayout) -> Result<(), Error> {
    let mut end = 0;
    for mapping in &process.mappings {
        let refuse = |why: &str| {
            let (start, end) = (mapping.start, mapping.end);
            Err(wrong(format!("mapping {start:#x}-{end:#x} of process {}", process.pid), why))
        };
        if is(mapping, SpecialImage::Vsyscall) {
            if mapping.start != VSYSCALL {
                return refuse("is not where the vsyscall page is");
            }
            continue;
        }
        if mapping.start % 4096 != 0 || mapping.end % 4096 != 0 || mapping.start >= mapping.end {
            return refuse("is empty or not aligned");
        }
        if mapping.start < end {
            return refuse("overlaps the one before it");
        }
        if mapping.end > USER_SPACE_END {
            return refuse("lies outside of user space");
        }
        if is_special(mapping) && mapping.start < VDSO_START_MIN {
            return refuse("is where the kernel never puts pages of its own");
        }
        if mapping.offset.checked_add(mapping.end - mapping.start).is_none() {
            return refuse("goes on beyond the end of every file");
        }
        end = mapping.end;
    }
    Ok(())
}

fn is(mapping: &MappingImage, special: SpecialImage) -> bool {
    mapping.backing == Some(BackingImage::Special(special.into()))
}

fn is_special(mapping: &MappingImage) -> bool {
    matches!(mapping.backing, Some(BackingImage::Special(_)))
}

fn wrong(part: String, why: impl Into<String>) -> Error {
    Error::invalid("use", Object::Image { part }, why)
}
