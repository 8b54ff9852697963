//! What a tree has open.

use super::flight::Flight;
use super::group::Groups;
use super::look::{Looked, Process};
use super::peers::Peers;
use crate::error::{Error, OnObject as _};
use crate::kinds::{ClockShifts, KindEntry, ObjectKey, Queued, Seen, kind_of};
use nix::sys::stat::fstat;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;

/// Every table of a tree as it was when it was looked at. A running program goes on opening and
/// closing: only what is collected from a frozen tree is exact.
#[derive(Debug, Default)]
pub struct Table {
    processes: Vec<Process>,
    pub(super) descriptions: Vec<Seen>,
    /// Beside `descriptions`: everything that refers to it.
    pub(super) referrers: Vec<Vec<(i32, i32)>>,
    pub(super) descriptors: Vec<Descriptor>,
    at: HashMap<(i32, i32), usize>,
    pub(super) objects: Vec<ObjectSeen>,
    locks: HashMap<(i32, i32), Vec<String>>,
    spaces: HashMap<(u64, u64), u32>,
    pub(super) flight: Flight,
}

#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) pid: i32,
    pub(super) fd: i32,
    pub(super) close_on_exec: bool,
    pub(super) description: usize,
}

/// Descriptions that are one object, in the words of its kind.
#[derive(Debug)]
pub(super) struct ObjectSeen {
    pub(super) kind: Option<&'static KindEntry>,
    pub(super) descriptions: Vec<usize>,
}

/// A file in memory that descriptors lead to, for whoever moves the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFile {
    pub device: u64,
    pub inode: u64,
    pub size_bytes: u64,
    /// One descriptor through which it can be had.
    pub pid: i32,
    pub fd: i32,
}

/// Looks at every descriptor of every process, from outside. Costs about 10 µs a descriptor, shared
/// among the processors.
///
/// What closes meanwhile is left out; ESRCH or ENOENT when a process is gone.
pub fn collect(pids: &[i32]) -> Result<Table, Error> {
    let (mut table, _) = collect_tables(pids)?;
    table.group_objects();
    Ok(table)
}

/// The same of a tree that stands still, with what is in flight between its sockets.
pub fn collect_frozen(pids: &[i32]) -> Result<Table, Error> {
    let (mut table, mut filling) = collect_tables(pids)?;
    table.add_in_flight(&mut filling)?;
    table.group_objects();
    Ok(table)
}

fn collect_tables(pids: &[i32]) -> Result<(Table, Filling), Error> {
    let mut table = Table::default();
    let mut filling = Filling::default();
    for &pid in pids {
        match table.add_process(pid, &mut filling) {
            // A running tree's processes come and go; a frozen one's do not.
            Err(error) if error.is_gone() => {}
            other => other?,
        }
    }
    Ok((table, filling))
}

/// What is needed only while a table is being filled.
#[derive(Default)]
pub(super) struct Filling {
    pub(super) groups: Groups,
    pub(super) peers: Peers,
}

impl Table {
    /// Name and version of each kind that is there.
    pub fn kinds(&self) -> BTreeSet<(&'static str, u32)> {
        let kinds = self.objects.iter().filter_map(|object| object.kind);
        kinds.map(|kind| (kind.name, kind.version)).collect()
    }

    /// A table of only these descriptors of one process.
    #[cfg(test)]
    pub(super) fn of(pid: i32, fds: &[i32]) -> Result<Self, Error> {
        let mut table = Self::default();
        let mut filling = Filling::default();
        let process = Process::open(pid)?;
        for looked in process.look_at_all(fds, &mut filling.peers)? {
            table.add(looked, &mut filling)?;
        }
        table.processes.push(process);
        table.add_in_flight(&mut filling)?;
        table.group_objects();
        Ok(table)
    }

    fn add_process(&mut self, pid: i32, filling: &mut Filling) -> Result<(), Error> {
        let process = Process::open(pid)?;
        for looked in process.look_at_all(&process.numbers()?, &mut filling.peers)? {
            self.add(looked, filling)?;
        }
        self.processes.push(process);
        Ok(())
    }

    fn add(&mut self, looked: Looked, filling: &mut Filling) -> Result<(), Error> {
        let description = match filling.groups.find(&looked, self.descriptions.len()) {
            // It was closed between the look and the comparison.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => return Ok(()),
            found => found.on("compare", || looked.seen.object("descriptor"))?,
        };
        self.refer(looked, description);
        Ok(())
    }

    fn refer(&mut self, looked: Looked, description: usize) {
        let Looked { seen, close_on_exec, .. } = looked;
        let (pid, fd) = (seen.pid, seen.fd);
        let locks: Vec<_> = seen.lines("lock").map(str::to_owned).collect();
        if !locks.is_empty() {
            self.locks.insert((pid, fd), locks);
        }
        if description == self.descriptions.len() {
            self.descriptions.push(seen);
            self.referrers.push(Vec::new());
        }
        self.at.insert((pid, fd), self.descriptors.len());
        self.referrers[description].push((pid, fd));
        self.descriptors.push(Descriptor { pid, fd, close_on_exec, description });
    }

    /// What no table of the tree has: it is seen through our own.
    pub(super) fn refer_in_flight(&mut self, looked: Looked) {
        let at = (looked.seen.pid, looked.seen.fd);
        let locks: Vec<_> = looked.seen.lines("lock").map(str::to_owned).collect();
        if !locks.is_empty() {
            self.locks.insert(at, locks);
        }
        self.descriptions.push(looked.seen);
        self.referrers.push(vec![at]);
    }

    /// In the order in which their first descriptor was found.
    fn group_objects(&mut self) {
        let mut known = HashMap::new();
        for (index, seen) in self.descriptions.iter().enumerate() {
            let kind = kind_of(seen);
            let key = kind.map_or(ObjectKey::Description, |kind| (kind.key)(seen));
            let place = match key {
                ObjectKey::Description => self.objects.len(),
                key => {
                    *known.entry((kind.map(|kind| kind.name), key)).or_insert(self.objects.len())
                }
            };
            if place == self.objects.len() {
                self.objects.push(ObjectSeen { kind, descriptions: Vec::new() });
            }
            self.objects[place].descriptions.push(index);
        }
    }

    pub fn descriptor_count(&self) -> usize {
        self.descriptors.len()
    }

    /// The processes it was collected from.
    pub fn pids(&self) -> impl Iterator<Item = i32> {
        self.processes.iter().map(|process| process.pid)
    }

    /// The files in memory (memfd_create(2)) whose content should travel as shared memory, whether
    /// anybody has them mapped or not. Those that get no space carry their bytes in the image.
    pub fn memory_files(&self) -> Vec<MemoryFile> {
        let memory = |object: &&ObjectSeen| object.kind.is_some_and(|kind| kind.name == "memfd");
        self.objects
            .iter()
            .filter(memory)
            .map(|object| {
                let seen = &self.descriptions[object.descriptions[0]];
                let Seen { device, inode, size, pid, fd, .. } = *seen;
                MemoryFile { device, inode, size_bytes: size, pid, fd }
            })
            .collect()
    }

    /// Says that the content of this inode travels as shared memory `space`.
    pub fn set_space(&mut self, device: u64, inode: u64, space: u32) {
        self.spaces.insert((device, inode), space);
    }

    pub(super) fn space(&self, device: u64, inode: u64) -> Option<u32> {
        self.spaces.get(&(device, inode)).copied()
    }

    pub(super) fn descriptor(&self, pid: i32, fd: i32) -> Option<&Descriptor> {
        self.at.get(&(pid, fd)).map(|&index| &self.descriptors[index])
    }

    pub(super) fn lock_lines(&self, pid: i32, fd: i32) -> &[String] {
        self.locks.get(&(pid, fd)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn clock_shifts(&self, pid: i32) -> ClockShifts {
        let process = self.processes.iter().find(|process| process.pid == pid);
        process.map_or(ClockShifts::default(), |process| process.clock_shifts)
    }

    /// What is queued in a socket that carries descriptors.
    pub(super) fn carried(&self, description: usize) -> Option<&[Queued]> {
        self.flight.queues.get(&description).map(Vec::as_slice)
    }

    /// Our own duplicate of a description.
    pub(super) fn steal(&self, seen: &Seen) -> io::Result<OwnedFd> {
        let mut processes = self.processes.iter().chain(&self.flight.us);
        let process = processes.find(|process| process.pid == seen.pid);
        process.ok_or(io::ErrorKind::NotFound)?.steal(seen.fd)
    }
    /// The same; `None` when it was closed since, and another may have been opened at its number.
    pub(super) fn steal_what_is_left(&self, seen: &Seen) -> io::Result<Option<OwnedFd>> {
        match self.steal(seen) {
            Ok(local) => {
                let now = fstat(&local)?;
                let is_it = (now.st_dev, now.st_ino) == (seen.device, seen.inode);
                Ok(is_it.then_some(local))
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
