//! What an agent leaves behind for the one that comes after it: which processes the tree has, and
//! which of their pages were missing when it was ready to run.

use engine::memory::lazy::LazySpace;
use engine::memory::{PAGE_BYTES, PageSet, Run};
use engine::tree::{Life, Process};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// For killed processes to be gone.
const END_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, prost::Message)]
pub struct Left {
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<LeftProcess>,
    #[prost(message, repeated, tag = "2")]
    pub spaces: Vec<LeftSpace>,
    /// It has been let run: who is stopped now was stopped by somebody else.
    #[prost(bool, tag = "3")]
    pub has_run: bool,
    /// That come with it, as `ADDR/LEN[@DEV]`.
    #[prost(string, repeated, tag = "4")]
    pub addresses: Vec<String>,
}

/// A process is known by its id and by when it was started, so that no stranger is taken for it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeftProcess {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(uint64, tag = "2")]
    pub start_ticks: u64,
    /// By job control: it goes on being stopped.
    #[prost(bool, tag = "3")]
    pub is_stopped: bool,
}

/// A [`LazySpace`]; its sets are runs of (address, pages), alternating.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeftSpace {
    #[prost(uint32, tag = "1")]
    pub space: u32,
    #[prost(int32, tag = "2")]
    pub pid: i32,
    #[prost(uint64, repeated, tag = "3")]
    pub missing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub ranges: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    pub wiped_on_fork: Vec<u64>,
}

impl Left {
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => {
                let left = Self::decode(&bytes[..]).map_err(io::Error::other)?;
                match left.spaces.iter().all(LeftSpace::is_possible) {
                    true => Ok(Some(left)),
                    // To pass over one of them would be to forget pages that are missing.
                    false => Err(io::Error::other("it lists pages that cannot be")),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whole or not at all.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, self.encode_to_vec())?;
        fs::rename(&unfinished, path)
    }

    /// A successor must not let processes go on that somebody has stopped since.
    pub fn note_that_it_has_run(path: &Path) -> io::Result<()> {
        match Self::read(path)? {
            Some(left) if !left.has_run => Self { has_run: true, ..left }.write(path),
            _ => Ok(()),
        }
    }

    pub fn living(&self) -> impl Iterator<Item = &LeftProcess> {
        self.processes.iter().filter(|process| process.is_alive())
    }

    /// Kills what is left of the tree, and waits until it is gone.
    pub fn end(&self) -> io::Result<()> {
        let limit = Instant::now() + END_WAIT;
        // Somebody may be about to be made by one that is killed next, so more than once.
        while self.living().count() > 0 {
            // Their children since then first: an orphan no longer says whose it was.
            for pid in self.living().flat_map(LeftProcess::and_descendants) {
                // It can only be gone already.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if Instant::now() > limit {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl LeftProcess {
    pub fn of(pid: i32, is_stopped: bool) -> Result<Self, engine::Error> {
        let process = Process::read(pid)?;
        Ok(Self { pid, start_ticks: process.start_ticks(), is_stopped })
    }

    fn is_alive(&self) -> bool {
        Process::read(self.pid).is_ok_and(|process| {
            process.start_ticks() == self.start_ticks && process.life != Life::Zombie
        })
    }

    fn and_descendants(&self) -> Vec<i32> {
        let tree = engine::tree::walk(self.pid).unwrap_or_default();
        let below = tree.iter().map(|process| process.pid).filter(|&pid| pid != self.pid);
        below.chain([self.pid]).collect()
    }

    /// Lets it go on where our predecessor had stopped it.
    pub fn go_on(&self) {
        if !self.is_stopped {
            // It can only be gone already.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGCONT);
        }
    }
}

impl LeftSpace {
    pub fn of(lazy: &LazySpace) -> Self {
        Self {
            space: lazy.space,
            pid: lazy.pid,
            missing: numbers(lazy.missing.runs()),
            ranges: numbers(lazy.ranges.iter().copied()),
            wiped_on_fork: numbers(lazy.wiped_on_fork.runs()),
        }
    }

    fn is_possible(&self) -> bool {
        [&self.missing, &self.ranges, &self.wiped_on_fork].into_iter().all(|numbers| {
            let is_whole = |run: &[u64]| match *run {
                [address, pages] => {
                    let bytes = pages.checked_mul(PAGE_BYTES);
                    let end = bytes.and_then(|bytes| bytes.checked_add(address));
                    address % PAGE_BYTES == 0 && end.is_some()
                }
                _ => false,
            };
            numbers.chunks(2).all(is_whole)
        })
    }

    pub fn lazy(&self) -> LazySpace {
        LazySpace {
            space: self.space,
            pid: self.pid,
            missing: runs(&self.missing).collect(),
            ranges: runs(&self.ranges).collect(),
            wiped_on_fork: runs(&self.wiped_on_fork).collect::<PageSet>(),
        }
    }
}

pub fn numbers(runs: impl Iterator<Item = Run>) -> Vec<u64> {
    runs.flat_map(|run| [run.address, run.pages]).collect()
}

fn runs(numbers: &[u64]) -> impl Iterator<Item = Run> + '_ {
    numbers.chunks_exact(2).map(|run| Run { address: run[0], pages: run[1] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_found_as_it_was() {
        let area = Run { address: 0x1000, pages: 9 };
        let missing: PageSet = [Run { address: 0x2000, pages: 2 }].into_iter().collect();
        let lazy = LazySpace {
            space: 3,
            pid: 7,
            missing,
            ranges: vec![area],
            wiped_on_fork: PageSet::new(),
        };
        let left = Left { spaces: vec![LeftSpace::of(&lazy)], ..Left::default() };
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("left");
        assert_eq!(Left::read(&path).unwrap(), None);
        left.write(&path).unwrap();
        let found = Left::read(&path).unwrap().unwrap().spaces[0].lazy();
        assert_eq!((found.space, found.pid, found.missing.pages()), (3, 7, 2));
        assert_eq!(found.ranges, [area]);
    }

    #[test]
    fn pages_that_cannot_be_are_an_error_and_not_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("left");
        for missing in [vec![4096], vec![1, 1], vec![4096, u64::MAX], vec![u64::MAX - 4095, 1]] {
            let space = LeftSpace { missing, ..LeftSpace::default() };
            Left { spaces: vec![space], ..Left::default() }.write(&path).unwrap();
            assert!(Left::read(&path).is_err());
        }
    }

    #[test]
    fn a_stranger_with_the_id_of_a_process_is_not_killed() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut process = LeftProcess::of(child.id().cast_signed(), false).unwrap();
        process.start_ticks += 1;
        let stranger = Left { processes: vec![process], ..Left::default() };
        stranger.end().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        process.start_ticks -= 1;
        let own = Left { processes: vec![process], ..Left::default() };
        own.end().unwrap();
        child.wait().unwrap();
    }
}
