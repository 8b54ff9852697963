//! What an observer sees of a process from `/proc`, so that two moments can be compared: before and
//! after a refusal nothing may differ, before and after a move nothing that the program could see.

use crate::hosts::Host;
use crate::wait;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

const SETTLED_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The lines of `status` that say who the process is, of every thread.
    pub identity: BTreeMap<i32, Vec<String>>,
    /// Number and target of each descriptor.
    pub descriptors: BTreeMap<i32, String>,
    pub mappings: Vec<Mapping>,
    pub command_line: String,
    pub children: Vec<i32>,
}

/// One mapping, or several neighbours of which the kernel could make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub permissions: String,
    /// In the file. Anonymous memory has none.
    pub offset: u64,
    pub path: String,
}

impl Footprint {
    pub fn of(host: &Host, pid: i32) -> Result<Self> {
        Ok(Self {
            identity: identities(host, pid)?,
            descriptors: descriptors(host, pid)?,
            mappings: mappings(&host.read(&format!("/proc/{pid}/maps"))?)?,
            command_line: host.read(&format!("/proc/{pid}/cmdline"))?,
            children: children(host, pid)?,
        })
    }

    /// The same, at a moment when nothing is in passing: a handler that runs blocks its signal, and
    /// a thread that starts blocks all.
    pub fn settled(host: &Host, pid: i32) -> Result<Self> {
        wait::until(
            wait::PATIENCE,
            || format!("process {pid} to settle"),
            || {
                let first = Self::of(host, pid)?;
                std::thread::sleep(Duration::from_millis(20));
                Ok((first == Self::of(host, pid)?).then_some(first))
            },
        )
    }

    /// Fails when `pid` looks different for as long as [`SETTLED_LIMIT`]; a single look can fall
    /// into a moment in passing.
    pub fn expect_again(&self, host: &Host, pid: i32) -> Result<()> {
        let started = Instant::now();
        loop {
            let difference = Self::of(host, pid).and_then(|now| self.compare(&now));
            if difference.is_ok() || started.elapsed() > SETTLED_LIMIT {
                return difference;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// An error that shows what differs, one line each.
    pub fn compare(&self, later: &Self) -> Result<()> {
        let (before, after) = (self.lines(), later.lines());
        let gone = before.difference(&after).map(|line| format!("- {line}"));
        let come = after.difference(&before).map(|line| format!("+ {line}"));
        let differences: Vec<String> = gone.chain(come).collect();
        ensure!(differences.is_empty(), "it looks different:\n{}", differences.join("\n"));
        Ok(())
    }

    fn lines(&self) -> BTreeSet<String> {
        let threads = self.identity.iter();
        let identity = threads.flat_map(|(tid, lines)| lines.iter().map(move |l| (tid, l)));
        let identity = identity.map(|(tid, line)| format!("thread {tid} {line}"));
        let descriptors = self.descriptors.iter().map(|(fd, to)| format!("descriptor {fd} {to}"));
        let mappings = self.mappings.iter().map(|mapping| format!("{mapping:x?}"));
        let rest = [format!("{:?}", self.command_line), format!("children {:?}", self.children)];
        identity.chain(descriptors).chain(mappings).chain(rest).collect()
    }
}

/// Memory sizes and context switches change by themselves; these do not. `TracerPid` and the signal
/// masks are among them: a tracer that stayed, or a signal that we left blocked, shows.
const IDENTITY: &[&str] = &[
    "Name",
    "Umask",
    "Tgid",
    "Pid",
    "TracerPid",
    "Uid",
    "Gid",
    "Groups",
    "NStgid",
    "NSpid",
    "NSpgid",
    "NSsid",
    "Threads",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed",
];

fn identities(host: &Host, pid: i32) -> Result<BTreeMap<i32, Vec<String>>> {
    let identity = |tid| {
        let status = host.read(&format!("/proc/{pid}/task/{tid}/status"))?;
        let named = |line: &&str| line.split_once(':').is_some_and(|(n, _)| IDENTITY.contains(&n));
        let lasting = status.lines().filter(named).map(str::to_owned);
        Ok((tid, lasting.chain(stopped(&status)).collect()))
    };
    threads(host, pid)?.into_iter().map(identity).collect()
}

/// Whether a thread sleeps or runs is chance, but a thread that stands still was made to.
fn stopped(status: &str) -> Option<String> {
    let state = status.lines().find(|line| line.starts_with("State:"))?;
    let is_stopped = state.contains("\tT (stopped)") || state.contains("\tt (tracing stop)");
    is_stopped.then(|| state.to_owned())
}

pub fn threads(host: &Host, pid: i32) -> Result<Vec<i32>> {
    numbers(host, &format!("/proc/{pid}/task"))
}

pub fn children(host: &Host, pid: i32) -> Result<Vec<i32>> {
    let lists: String = threads(host, pid)?
        .into_iter()
        // A thread may end while we look; its children are then its process's.
        .filter_map(|tid| host.read(&format!("/proc/{pid}/task/{tid}/children")).ok())
        .collect();
    lists.split_whitespace().map(|child| Ok(child.parse()?)).collect()
}

fn descriptors(host: &Host, pid: i32) -> Result<BTreeMap<i32, String>> {
    let directory = format!("/proc/{pid}/fd");
    let target = |number: i32| {
        let link = fs::read_link(host.path(&format!("{directory}/{number}")))
            .with_context(|| format!("descriptor {number} of process {pid}"))?;
        Ok((number, without_inode(&link.to_string_lossy())))
    };
    numbers(host, &directory)?.into_iter().map(target).collect()
}

/// `pipe:[81923]` is another inode after a move; that it is a pipe is what counts.
fn without_inode(target: &str) -> String {
    let inode = target.strip_suffix(']').and_then(|target| target.split_once(":["));
    match inode {
        Some((kind, inode)) if inode.parse::<u64>().is_ok() => format!("{kind}:[]"),
        _ => target.to_owned(),
    }
}

fn numbers(host: &Host, directory: &str) -> Result<Vec<i32>> {
    let entries = fs::read_dir(host.path(directory))
        .with_context(|| format!("list {directory} on {}", host.name()))?;
    let mut numbers = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?))
        .collect::<Result<Vec<i32>>>()?;
    numbers.sort_unstable();
    Ok(numbers)
}

fn mappings(maps: &str) -> Result<Vec<Mapping>> {
    let mut merged: Vec<Mapping> = Vec::new();
    for line in maps.lines() {
        let next = mapping(line).with_context(|| format!("the mapping {line:?}"))?;
        match merged.last_mut().filter(|last| last.continues_in(&next)) {
            Some(last) => last.end = next.end,
            None => merged.push(next),
        }
    }
    Ok(merged)
}

/// `start-end permissions offset device inode path`, as proc_pid_maps(5) has it.
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.to_owned();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (_device, _inode) = (fields.next()?, fields.next()?);
    let path = fields.next().unwrap_or_default().trim().to_owned();
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    Some(Mapping { start, end, permissions, offset, path })
}

impl Mapping {
    /// Whether the kernel merges two equal neighbours depends on how they came to be equal, which is
    /// nothing a program can rely on.
    fn continues_in(&self, next: &Self) -> bool {
        let is_file = self.path.starts_with('/');
        self.end == next.start
            && self.permissions == next.permissions
            && self.path == next.path
            && (!is_file || self.offset + (self.end - self.start) == next.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-2000 r--p 00000000 fe:00 12                         /bin/x
2000-3000 r--p 00001000 fe:00 12                         /bin/x
3000-4000 r--p 00001000 fe:00 12                         /bin/x
5000-6000 rw-p 00000000 00:00 0 
6000-7000 rw-p 00000000 00:00 0 
7000-8000 r--p 00000000 00:00 0 
";

    #[test]
    fn equal_neighbours_are_one_mapping() {
        let found = mappings(MAPS).unwrap();
        let ranges: Vec<_> = found.iter().map(|m| (m.start, m.end)).collect();
        assert_eq!(
            ranges,
            [(0x1000, 0x3000), (0x3000, 0x4000), (0x5000, 0x7000), (0x7000, 0x8000)]
        );
        assert_eq!(found[0].path, "/bin/x");
    }

    #[test]
    fn a_difference_is_shown_from_both_sides() {
        let footprint = |descriptors: &[(i32, &str)]| Footprint {
            identity: BTreeMap::new(),
            descriptors: descriptors.iter().map(|(fd, to)| (*fd, to.to_string())).collect(),
            mappings: vec![],
            command_line: String::new(),
            children: vec![],
        };
        let (before, after) =
            (footprint(&[(0, "a"), (1, "b")]), footprint(&[(0, "a"), (3, "uffd")]));
        assert!(before.compare(&before).is_ok());
        let said = before.compare(&after).unwrap_err().to_string();
        assert!(said.ends_with("- descriptor 1 b\n+ descriptor 3 uffd"), "{said}");
    }

    #[test]
    fn only_a_state_that_lasts_is_part_of_who_a_thread_is() {
        let state = |state| stopped(&format!("Name:\tx\nState:\t{state}\nTgid:\t1\n"));
        assert_eq!(state("R (running)"), None);
        assert_eq!(state("S (sleeping)"), None);
        assert_eq!(state("T (stopped)").as_deref(), Some("State:\tT (stopped)"));
        assert_eq!(state("t (tracing stop)").as_deref(), Some("State:\tt (tracing stop)"));
    }

    #[test]
    fn an_inode_is_not_part_of_a_descriptor() {
        assert_eq!(without_inode("pipe:[81923]"), "pipe:[]");
        assert_eq!(without_inode("anon_inode:[eventfd]"), "anon_inode:[eventfd]");
        assert_eq!(without_inode("/tmp/x"), "/tmp/x");
    }
}
