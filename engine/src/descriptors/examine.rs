//! What cannot be moved, and what will be different: every descriptor of the tree is asked.

use super::table::{ObjectSeen, Table};
use crate::error::Object;
use crate::kinds::{ClockShifts, Findings, Queued, Rules, Seen, Tree, refuse_unclaimed};
use crate::network::namespace;
use crate::refusal::Refusal;
use crate::sys;
use crate::tree;
use std::os::fd::AsFd as _;

/// Everything that is in the way, and everything worth telling, of a tree that may be running.
pub fn examine(table: &Table, rules: &Rules) -> Findings {
    let judged = Judged { table, rules };
    let mut findings = Findings::default();
    for object in &table.objects {
        examine_object(object, &judged, &mut findings);
    }
    for pid in table.pids() {
        examine_threads(pid, &mut findings);
    }
    examine_tables(table, &mut findings);
    examine_places(table, &mut findings);
    findings
}

fn examine_object(object: &ObjectSeen, judged: &Judged<'_>, findings: &mut Findings) {
    let descriptions = object.descriptions.iter();
    let of: Vec<_> = descriptions.map(|&at| &judged.table.descriptions[at]).collect();
    match object.kind {
        Some(kind) => (kind.examine)(&of, judged, findings),
        None => of.iter().for_each(|seen| refuse_unclaimed(seen, findings)),
    }
}

/// Why something that is only in flight cannot be moved. Nobody could see it before the freeze.
pub(super) fn refuse_in_flight(judged: &Judged<'_>) -> Option<Refusal> {
    let table = judged.table;
    let flies = |object: &&ObjectSeen| {
        object.descriptions.iter().all(|&at| table.descriptions[at].in_flight_to.is_some())
    };
    let mut findings = Findings::default();
    for object in table.objects.iter().filter(flies) {
        examine_object(object, judged, &mut findings);
        if let Some(kind) = object.kind.filter(|kind| kind.needs_owner) {
            let seen = &table.descriptions[object.descriptions[0]];
            findings.refuse(seen.object(kind.name), "has no owner", "Try again later.");
        }
    }
    findings.refusals.into_iter().next()
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

    fn carried(&self, description: usize) -> Option<&[Queued]> {
        self.table.carried(description)
    }
}

/// A socket stays in the network namespace that it was made in, whoever has it. Of a unix socket the
/// name alone is of it.
fn examine_places(table: &Table, findings: &mut Findings) {
    let is_bound_there =
        |seen: &&Seen| seen.socket.as_ref().is_some_and(|socket| socket.domain != libc::AF_UNIX);
    for seen in table.descriptions.iter().filter(is_bound_there) {
        let elsewhere = table.steal(seen);
        let elsewhere =
            elsewhere.and_then(|local| namespace::is_elsewhere(local.as_fd(), seen.pid));
        if elsewhere.is_ok_and(|elsewhere| elsewhere) {
            findings.refuse(
                seen.object("socket"),
                "is in another network namespace than its process",
                "Let the program make it in its own namespace.",
            );
        }
    }
}

/// A thread may have left its process's table: unshare(CLONE_FILES).
fn examine_threads(pid: i32, findings: &mut Findings) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    let tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse::<i32>().ok());
    for tid in tids.filter(|&tid| tid != pid) {
        // A thread that ends meanwhile has no table to speak of.
        let differs = sys::fd::share_table(pid, tid).is_ok_and(|shared| !shared);
        if differs && tree::is_alive(tid) {
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
            // Two that end at this moment have none, and that is equal as well.
            let is_one = sys::fd::share_table(first, pid).is_ok_and(|shared| shared);
            if is_one && tree::is_alive(pid) {
                findings.refuse(
                    Object::Process { pid },
                    format!("shares its table of descriptors with process {first}"),
                    "Wait until it has called exec.",
                );
            }
        }
    }
}
