//! What cannot be moved, and what will be different: every descriptor of the tree is asked.

use super::table::Table;
use crate::error::Object;
use crate::kinds::{ClockShifts, Findings, Rules, Seen, Tree, refuse_unclaimed};
use crate::sys;

/// Everything that is in the way, and everything worth telling, of a tree that may be running.
pub fn examine(table: &Table, rules: &Rules) -> Findings {
    let judged = Judged { table, rules };
    let mut findings = Findings::default();
    for object in &table.objects {
        let of: Vec<_> = object.descriptions.iter().map(|&at| &table.descriptions[at]).collect();
        match object.kind {
            Some(kind) => (kind.examine)(&of, &judged, &mut findings),
            None => of.iter().for_each(|seen| refuse_unclaimed(seen, &mut findings)),
        }
    }
    for pid in table.pids() {
        examine_threads(pid, &mut findings);
    }
    examine_tables(table, &mut findings);
    findings
}

/// The tree and the rules together are what a kind judges by.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    pub(super) table: &'a Table,
    pub(super) rules: &'a Rules,
}

impl Tree for Judged<'_> {
    fn rules(&self) -> &Rules {
        self.rules
    }

    fn contains_process(&self, pid: i32) -> bool {
        self.table.pids().any(|own| own == pid)
    }

    fn descriptions(&self) -> &[Seen] {
        &self.table.descriptions
    }

    fn descriptors(&self, description: usize) -> &[(i32, i32)] {
        self.table.referrers.get(description).map_or(&[], Vec::as_slice)
    }

    fn description_at(&self, pid: i32, fd: i32) -> Option<usize> {
        self.table.descriptor(pid, fd).map(|descriptor| descriptor.description)
    }

    fn is_close_on_exec(&self, pid: i32, fd: i32) -> bool {
        self.table.descriptor(pid, fd).is_some_and(|descriptor| descriptor.close_on_exec)
    }

    fn lock_lines(&self, pid: i32, fd: i32) -> &[String] {
        self.table.lock_lines(pid, fd)
    }

    fn clock_shifts(&self, pid: i32) -> ClockShifts {
        self.table.clock_shifts(pid)
    }

    fn space(&self, device: u64, inode: u64) -> Option<u32> {
        self.table.space(device, inode)
    }
}

/// A thread may have left its process's table: unshare(CLONE_FILES).
fn examine_threads(pid: i32, findings: &mut Findings) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    let tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse::<i32>().ok());
    for tid in tids.filter(|&tid| tid != pid) {
        // A thread that ends meanwhile has no table to speak of.
        if sys::fd::share_table(pid, tid).is_ok_and(|shared| !shared) {
            findings.refuse(
                Object::Thread { pid, tid },
                "has a table of descriptors of its own",
                "Programs that use unshare(CLONE_FILES) in a thread cannot be moved yet.",
            );
        }
    }
}

/// Two processes may have one table: clone(CLONE_FILES). Then they show the same numbers.
fn examine_tables(table: &Table, findings: &mut Findings) {
    let mut by_numbers: std::collections::HashMap<Vec<i32>, Vec<i32>> = Default::default();
    for pid in table.pids() {
        let own = table.descriptors.iter().filter(|descriptor| descriptor.pid == pid);
        by_numbers.entry(own.map(|descriptor| descriptor.fd).collect()).or_default().push(pid);
    }
    for alike in by_numbers.values() {
        let (first, rest) = (alike[0], &alike[1..]);
        for &pid in rest {
            if sys::fd::share_table(first, pid).is_ok_and(|shared| shared) {
                findings.refuse(
                    Object::Process { pid },
                    format!("shares its table of descriptors with process {first}"),
                    "Wait until it has called exec.",
                );
            }
        }
    }
}
