//! For the tests: a real process whose memory is watched, and what a destination would have of it.

use super::mapping::{Mapping, between};
use super::read::is_zero;
use super::tracker::{self, Method, Tracker};
use super::{DATA_BYTES_MAX, PAGE_BYTES, PageSink, mapping};
use crate::puppet::{Steered, find_syscall};
use crate::sys::pagemap::Pagemap;
use crate::tracee::{OnOurDeath, Outcome, Running, STOP_WAIT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Compiled once, for all tests of this run.
fn compiled() -> &'static Path {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("test_program.c");
        std::fs::write(&source, include_str!("test_program.c")).unwrap();
        let compiler = Command::new("cc")
            .args(["-O1", "-w", "-pthread", "-o"])
            .arg(directory.path().join("test_program"))
            .arg(source)
            .status();
        assert!(compiler.expect("a C compiler").success());
        directory
    });
    directory.path()
}

pub(super) struct Program {
    pub(super) pid: i32,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    addresses: HashMap<String, u64>,
}

impl Program {
    pub(super) fn start(name: &str) -> Self {
        Self::start_with(name, 1)
    }

    pub(super) fn start_with(name: &str, seed: u64) -> Self {
        let directory = compiled();
        let mut child = Command::new(directory.join("test_program"))
            .args([name, directory.to_str().unwrap(), &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let pid = child.id().cast_signed();
        let mut program = Self { pid, child, input, output, addresses: HashMap::new() };
        program.read_until_ready();
        program
    }

    fn read_until_ready(&mut self) {
        loop {
            let line = self.line();
            let Some((name, address)) = line.split_once(' ') else {
                assert_eq!(line, "ready");
                return;
            };
            let address = u64::from_str_radix(address, 16).unwrap();
            self.addresses.insert(name.to_owned(), address);
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(super) fn address(&self, name: &str) -> u64 {
        self.addresses[name]
    }

    /// Makes it do one thing, and returns the address that it is about.
    pub(super) fn step(&mut self, command: &str) -> u64 {
        self.send(command);
        let line = self.line();
        let address = line.strip_prefix("done ").expect(command);
        u64::from_str_radix(address, 16).unwrap()
    }

    /// The same program from its start, in new memory.
    pub(super) fn execute_again(&mut self) {
        self.send("exec");
        self.read_until_ready();
    }

    fn send(&mut self, command: &str) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    pub(super) fn mappings(&self) -> Vec<Mapping> {
        mapping::read(self.pid).unwrap()
    }

    /// Every thread stands still when this returns.
    pub(super) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        for _ in 0..2000 {
            if self.states().iter().all(|state| *state == 'T') {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not stop: {:?}", self.states());
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    fn states(&self) -> Vec<char> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        let stat = |task: io::Result<std::fs::DirEntry>| {
            let stat =
                std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('T')
        };
        tasks.map(stat).collect()
    }

    /// By the best method that works here, installed as it is in a migration.
    pub(super) fn tracker(&self) -> Option<Box<dyn Tracker>> {
        match tracker::probe() {
            Some(Method::WriteProtect) => Some(self.write_protect()),
            Some(Method::SoftDirty) => Some(tracker::soft_dirty(self.pid).unwrap()),
            None => {
                crate::skipped::skip("this kernel tracks no writes");
                None
            }
        }
    }

    fn write_protect(&self) -> Box<dyn Tracker> {
        let seized = Running::seize(self.pid, self.pid, OnOurDeath::Runs).unwrap();
        let Outcome::Alive(running) = seized else { panic!("it is gone") };
        let Outcome::Alive(stopped) = running.stop(STOP_WAIT).unwrap() else {
            panic!("it is gone")
        };
        let steered = Steered::begin(&stopped).unwrap();
        let syscall_at = find_syscall(self.pid).unwrap();
        let userfaultfd = tracker::take_userfaultfd(&steered, syscall_at).unwrap();
        steered.end().unwrap();
        stopped.release().unwrap();
        tracker::write_protect(self.pid, userfaultfd).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Closing its input lets it tidy up; killing it makes sure.
        drop(self.input.take());
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a destination has after the records it was sent.
#[derive(Default)]
pub(super) struct Replica {
    pages: BTreeMap<u64, Box<[u8]>>,
    pub(super) longest_data: usize,
}

impl PageSink for Replica {
    fn data(&mut self, _space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(!bytes.is_empty() && bytes.len().is_multiple_of(4096));
        assert!(bytes.len() <= DATA_BYTES_MAX && address.is_multiple_of(PAGE_BYTES));
        self.longest_data = self.longest_data.max(bytes.len());
        for (index, page) in bytes.chunks(4096).enumerate() {
            self.pages.insert(address + index as u64 * PAGE_BYTES, page.into());
        }
        Ok(())
    }

    fn zero(&mut self, _space: u32, address: u64, pages: u64) -> io::Result<()> {
        for index in 0..pages {
            self.pages.insert(address + index * PAGE_BYTES, vec![0; 4096].into());
        }
        Ok(())
    }

    fn dropped(&mut self, _space: u32, address: u64, pages: u64) -> io::Result<()> {
        for index in 0..pages {
            let was = self.pages.remove(&(address + index * PAGE_BYTES));
            assert!(was.is_some(), "only what was sent is dropped");
        }
        Ok(())
    }
}

impl Replica {
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn page(&self, address: u64) -> &[u8] {
        &self.pages[&address]
    }

    pub(super) fn has(&self, address: u64) -> bool {
        self.pages.contains_key(&address)
    }

    /// Compares with a process that stands still, both ways. What the process has is found in
    /// pagemap's array, not by the scan that the tracker uses.
    pub(super) fn assert_equals(&self, program: &Program, mappings: &[Mapping]) {
        let memory = File::open(format!("/proc/{}/mem", program.pid)).unwrap();
        let here = |address| {
            let mut page = [0; 4096];
            memory.read_exact_at(&mut page, address).map(|()| page)
        };
        for address in private_pages(program.pid, mappings) {
            let Ok(page) = here(address) else { continue }; // a guard page
            let fits = match self.pages.get(&address) {
                Some(sent) => **sent == page,
                None => is_zero(&page) && !is_of_file(mappings, address),
            };
            assert!(fits, "{}", self.describe(address, mappings));
        }
        for (address, sent) in &self.pages {
            let listed = between(mappings, *address, address + 1).first();
            assert!(
                listed.is_some_and(Mapping::holds_private_pages),
                "{address:#x} was sent and is in no private mapping, and was not dropped"
            );
            let equal = here(*address).map_or(true, |page| **sent == page);
            assert!(equal, "{}", self.describe(*address, mappings));
        }
    }

    fn describe(&self, address: u64, mappings: &[Mapping]) -> String {
        let what = if self.has(address) { "differs" } else { "was never sent" };
        format!("page {address:#x} {what}, in {:?}", between(mappings, address, address + 1))
    }
}

fn is_of_file(mappings: &[Mapping], address: u64) -> bool {
    between(mappings, address, address + 1).first().is_some_and(Mapping::has_file)
}

fn private_pages(pid: i32, mappings: &[Mapping]) -> Vec<u64> {
    let pagemap = Pagemap::open(pid).unwrap();
    let mut pages = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.holds_private_pages()) {
        let mut visit = |address, entry: crate::sys::pagemap::Entry| {
            let there = entry.is_present() || entry.is_swapped();
            pages.extend((there && !entry.is_file()).then_some(address));
        };
        pagemap.entries(mapping.start, mapping.end, &mut visit).unwrap();
    }
    pages
}
