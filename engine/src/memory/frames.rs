//! Page frames that two processes have in common: what fork(2) shared and neither has written.

use super::page_set::{PAGE_BYTES, PageSet, Run};
use crate::error::{Error, Object, OnObject as _};
use crate::sys::pagemap::Pagemap;

/// Pages that are looked at in one go, so that this needs little memory however much they have.
const PIECE_PAGES: u64 = 4096;

/// Of `pages`, those that are one frame in both processes; it is enough to find `pages_enough`, and
/// more may be found. None when either has ended, or when we
/// may not see frames (CAP_SYS_ADMIN).
///
/// The kernel may move a page to another frame at any moment (compaction). A frame that is left by
/// one process and taken by the other between two looks would seem to be shared; so the first is
/// looked at again after the second, and must still have it.
pub(crate) fn alike(
    one: i32,
    other: i32,
    pages: &PageSet,
    pages_enough: u64,
) -> Result<PageSet, Error> {
    let mut found = PageSet::new();
    let both = open(one).and_then(|one| Ok((one, open(other)?)));
    let (of_one, of_other) = match both {
        Err(error) if error.is_gone() => return Ok(found),
        other => other?,
    };
    for piece in pages.runs().flat_map(pieces) {
        if found.pages() >= pages_enough {
            break;
        }
        let first = of_one.frames(piece)?;
        if first.iter().all(Option::is_none) {
            continue;
        }
        let second = of_other.frames(piece)?;
        let again = of_one.frames(piece)?;
        let triples = first.iter().zip(&second).zip(&again);
        let is_alike = triples.map(|((a, b), c)| a.is_some() && a == b && a == c);
        found.extend(runs(piece.address, is_alike));
    }
    Ok(found)
}

/// The pages from `start` on for which it is true.
fn runs(start: u64, each: impl Iterator<Item = bool>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (is_in, address) in each.zip((start..).step_by(4096)) {
        match runs.last_mut() {
            _ if !is_in => {}
            Some(last) if last.end() == address => last.pages += 1,
            _ => runs.push(Run { address, pages: 1 }),
        }
    }
    runs
}

fn pieces(run: Run) -> impl Iterator<Item = Run> {
    let step = usize::try_from(PIECE_PAGES * PAGE_BYTES).expect("a few mebibytes");
    (run.address..run.end()).step_by(step).map(move |address| {
        let pages = PIECE_PAGES.min((run.end() - address) / PAGE_BYTES);
        Run { address, pages }
    })
}

struct Frames {
    pid: i32,
    pagemap: Pagemap,
}

fn open(pid: i32) -> Result<Frames, Error> {
    let pagemap = Pagemap::open(pid).on("open the pagemap of", || Object::Process { pid })?;
    Ok(Frames { pid, pagemap })
}

impl Frames {
    /// Of each page; `None` for one that is not in memory, or that is a file's.
    fn frames(&self, piece: Run) -> Result<Vec<Option<u64>>, Error> {
        let mut frames = Vec::new();
        let mut visit = |_, entry: crate::sys::pagemap::Entry| {
            frames.push(entry.frame().filter(|_| !entry.is_file()));
        };
        self.pagemap
            .entries(piece.address, piece.end(), &mut visit)
            .on("read the pagemap of", || Object::Process { pid: self.pid })?;
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PageRun;
    use crate::memory::read::{Pages, Reader, While};
    use crate::memory::test_program::Replica;
    use crate::sys::process::{fork_parked, pidfd_open, pidfd_signal, reap};
    use crate::sys::vm::Scratch;
    use std::os::fd::AsFd as _;

    const PAGES: u64 = 64;

    /// A fork of this process that does nothing.
    struct Parked(i32);

    impl Parked {
        fn fork() -> Self {
            Self(fork_parked(None, None).unwrap())
        }
    }

    impl Drop for Parked {
        fn drop(&mut self) {
            let process = pidfd_open(self.0).unwrap();
            pidfd_signal(process.as_fd(), libc::SIGKILL).unwrap();
            while !reap(self.0).unwrap() {
                std::thread::yield_now();
            }
        }
    }

    fn filled() -> Scratch {
        let bytes = usize::try_from(PAGES * PAGE_BYTES).unwrap();
        let mut scratch = Scratch::new(bytes).unwrap();
        scratch.advise(libc::MADV_NOHUGEPAGE).unwrap();
        (0..bytes).step_by(4096).for_each(|at| scratch.write(at, 7));
        scratch
    }

    fn all(scratch: &Scratch) -> PageSet {
        [Run { address: scratch.address(), pages: PAGES }].into_iter().collect()
    }

    #[test]
    fn a_process_has_every_page_in_common_with_itself() {
        let (scratch, us) = (filled(), std::process::id().cast_signed());
        assert_eq!(alike(us, us, &all(&scratch), u64::MAX).unwrap(), all(&scratch));
    }

    #[test]
    fn a_fork_has_what_neither_has_written_and_what_both_only_read() {
        let (mut scratch, us) = (filled(), std::process::id().cast_signed());
        let child = Parked::fork();
        scratch.write(3 * 4096, 8);
        let mut expected = all(&scratch);
        expected.remove(scratch.address() + 3 * PAGE_BYTES, 1);
        assert_eq!(alike(us, child.0, &all(&scratch), u64::MAX).unwrap(), expected);
        assert_eq!(alike(child.0, us, &all(&scratch), u64::MAX).unwrap(), expected);
    }

    #[test]
    fn reading_pages_leaves_them_shared() {
        let (scratch, us) = (filled(), std::process::id().cast_signed());
        let child = Parked::fork();
        for pid in [child.0, us] {
            let runs = [PageRun { address: scratch.address(), pages: PAGES, zero: false }];
            let mut reader = Reader::new(pid, Pages::MayBeShared);
            let read = reader.read(0, runs, While::Frozen, &mut Replica::default()).unwrap();
            assert_eq!(read.data_pages, PAGES);
        }
        assert_eq!(alike(us, child.0, &all(&scratch), u64::MAX).unwrap(), all(&scratch));
    }

    #[test]
    fn nothing_is_shared_with_a_process_that_has_ended() {
        let (scratch, us) = (filled(), std::process::id().cast_signed());
        assert!(alike(us, i32::MAX, &all(&scratch), u64::MAX).unwrap().is_empty());
        assert!(alike(i32::MAX, us, &all(&scratch), u64::MAX).unwrap().is_empty());
    }

    #[test]
    fn no_more_is_looked_at_than_is_enough() {
        let (scratch, us) = (filled(), std::process::id().cast_signed());
        let apart: PageSet = all(&scratch)
            .runs()
            .flat_map(|run| {
                (0..run.pages)
                    .step_by(2)
                    .map(move |n| Run { address: run.address + n * PAGE_BYTES, pages: 1 })
            })
            .collect();
        assert_eq!(alike(us, us, &apart, 5).unwrap().pages(), 5);
    }

    #[test]
    fn pages_in_a_row_become_one_run() {
        let found = runs(0x1000, [true, true, false, true].into_iter());
        let expected = [(0x1000, 2), (0x4000, 1)].map(|(address, pages)| Run { address, pages });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_long_run_is_looked_at_in_pieces() {
        let run = Run { address: 0x1000, pages: 2 * PIECE_PAGES + 1 };
        let pieces: Vec<Run> = pieces(run).collect();
        assert_eq!(pieces.iter().map(|piece| piece.pages).collect::<Vec<_>>(), [4096, 4096, 1]);
        assert_eq!(pieces[2].end(), run.end());
    }
}
