//! Real programs that check every word of their memory while it comes lazily.

use super::*;
use crate::memory::lazy_program::{Program, pattern};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

const NETWORK: Duration = Duration::from_micros(200);
const LONG: Duration = Duration::from_secs(60);

/// The other host: knows every page by heart, and answers a little later.
struct Source {
    requests: Sender<Run>,
    asked: Mutex<Vec<Run>>,
    unwanted: Mutex<Vec<Run>>,
}

impl PageSource for Source {
    fn request(&self, space: u32, address: u64, pages: u32) {
        assert_eq!(space, 7);
        let run = Run { address, pages: u64::from(pages) };
        self.asked.lock().unwrap().push(run);
        let _ = self.requests.send(run); // after the test nobody answers any more
    }

    fn unwanted(&self, space: u32, address: u64, pages: u64) {
        assert_eq!(space, 7);
        self.unwanted.lock().unwrap().push(Run { address, pages });
    }
}

/// A program in the lazy phase, its source, and the thread that answers faults.
struct Lazy {
    program: Program,
    memory: Arc<LazyMemory>,
    source: Arc<Source>,
    area: Run,
}

impl Lazy {
    /// Every page is missing.
    fn start(mode: &str, pages: u64) -> Self {
        Self::with_missing(mode, pages, |_| true)
    }

    fn with_wiped_half(mode: &str, pages: u64) -> Self {
        let wiped =
            |area: Run| Run { address: area.address + pages / 2 * PAGE_BYTES, pages: pages / 2 };
        Self::with(mode, pages, |_| true, |area| [wiped(area)].into_iter().collect())
    }

    fn with_missing(mode: &str, pages: u64, missing: fn(u64) -> bool) -> Self {
        Self::with(mode, pages, missing, |_| PageSet::new())
    }

    fn with(
        mode: &str,
        pages: u64,
        missing: fn(u64) -> bool,
        wiped: impl Fn(Run) -> PageSet,
    ) -> Self {
        let mut program = Program::start(mode, pages);
        let (uffd, area) = program.take_uffd(pages);
        let missing = (0..pages).filter(|page| missing(*page));
        let space = LazySpace {
            space: 7,
            pid: program.pid(),
            missing: missing
                .map(|n| Run { address: area.address + n * PAGE_BYTES, pages: 1 })
                .collect(),
            ranges: vec![area],
            wiped_on_fork: wiped(area),
        };
        let (requests, receiver) = channel();
        let source =
            Arc::new(Source { requests, asked: Mutex::default(), unwanted: Mutex::default() });
        let served = Arc::clone(&source) as Arc<dyn PageSource>;
        let memory = Arc::new(
            LazyMemory::start(vec![(space, uffd)], served, None).expect("lazy memory starts"),
        );
        answer(receiver, &memory);
        Self { program, memory, source, area }
    }

    fn go(&mut self) {
        self.program.say("go");
    }

    /// Everything once, in order, as the push does it; faults are answered beside it.
    fn push_all(&self, block_pages: u64) {
        for at in (0..self.area.pages).step_by(usize::try_from(block_pages).unwrap()) {
            let run = Run {
                address: self.area.address + at * PAGE_BYTES,
                pages: block_pages.min(self.area.pages - at),
            };
            self.memory.deliver(7, run.address, &pattern(run)).expect("pages are delivered");
        }
    }

    fn finish(self) -> Statistics {
        assert!(self.memory.wait(LONG).expect("serving goes well"), "finished in time");
        self.program.ended_well();
        self.memory.statistics()
    }
}

/// Answers on a thread of its own, after the network's delay; ends with the lazy memory.
fn answer(requests: Receiver<Run>, memory: &Arc<LazyMemory>) {
    let memory = Arc::downgrade(memory);
    thread::spawn(move || {
        while let Ok(run) = requests.recv() {
            thread::sleep(NETWORK);
            let Some(memory) = memory.upgrade() else { return };
            memory.deliver(7, run.address, &pattern(run)).expect("an answer is delivered");
        }
    });
}

/// Two programs at a time would only measure each other.
fn alone() -> impl Drop {
    static ONE: OnceLock<Mutex<()>> = OnceLock::new();
    ONE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program does its work with every page coming by fault; then the rest is pushed, and it
/// looks once more.
fn works_while_lazy(mode: &str, pages: u64) -> Statistics {
    let _alone = alone();
    let mut lazy = Lazy::start(mode, pages);
    lazy.go();
    lazy.program.expect("wait");
    lazy.push_all(16);
    assert!(lazy.memory.wait(LONG).unwrap());
    lazy.program.say("look");
    lazy.finish()
}

/// The same with the push beside it from the start.
fn works_while_pushed(mode: &str, pages: u64) -> Statistics {
    let _alone = alone();
    let mut lazy = Lazy::start(mode, pages);
    lazy.go();
    lazy.push_all(16);
    lazy.program.expect("wait");
    assert!(lazy.memory.wait(LONG).unwrap());
    lazy.program.say("look");
    lazy.finish()
}

#[test]
fn every_page_comes_by_fault_when_nobody_pushes() {
    let _alone = alone();
    let mut lazy = Lazy::start("random", 2000);
    lazy.go();
    let statistics = lazy.finish();
    assert_eq!(statistics.pages_by_fault, 2000);
    assert_eq!(statistics.pages_by_push, 0);
    assert!(statistics.faults >= 2000 / 16, "{statistics:?}");
    assert!(statistics.waits.permille(500) >= NETWORK, "{statistics:?}");
}

#[test]
fn no_page_is_asked_for_twice() {
    let _alone = alone();
    let mut lazy = Lazy::start("random", 2000);
    let source = Arc::clone(&lazy.source);
    lazy.go();
    lazy.finish();
    let asked = source.asked.lock().unwrap();
    let once: PageSet = asked.iter().copied().collect();
    assert_eq!(asked.iter().map(|run| run.pages).sum::<u64>(), once.pages());
}

#[test]
fn a_walk_through_memory_gets_longer_windows() {
    let _alone = alone();
    let mut lazy = Lazy::start("sequential", 4000);
    let source = Arc::clone(&lazy.source);
    lazy.go();
    let statistics = lazy.finish();
    assert!(source.asked.lock().unwrap().iter().any(|run| run.pages == 64));
    assert!(statistics.faults < 4000 / 32, "{statistics:?}");
}

#[test]
fn pages_that_never_were_are_zeros_at_once() {
    let _alone = alone();
    let mut lazy = Lazy::with_missing("holes", 1600, |page| page % 16 >= 8);
    lazy.go();
    let statistics = lazy.finish();
    assert_eq!(statistics.zero_faults, 800);
    assert_eq!(statistics.pages_by_fault, 800);
}

#[test]
fn pages_can_turn_out_to_be_zeros() {
    let _alone = alone();
    let mut lazy = Lazy::start("holes", 1600);
    for block in 0..100 {
        let address = lazy.area.address + block * 16 * PAGE_BYTES;
        lazy.memory.deliver_zero(7, address, 8).unwrap();
    }
    assert_eq!(lazy.memory.missing_pages(), 800);
    lazy.go();
    assert_eq!(lazy.finish().pages_by_fault, 800);
}

#[test]
fn what_is_wiped_on_fork_is_zeros_in_the_child_alone() {
    let _alone = alone();
    let mut lazy = Lazy::with_wiped_half("wipe", 1600);
    lazy.go();
    lazy.finish();
}

#[test]
fn a_range_without_the_missing_page_is_refused() {
    let _alone = alone();
    let mut program = Program::start("random", 10);
    let (uffd, area) = program.take_uffd(10);
    let missing = [Run { address: area.end(), pages: 1 }].into_iter().collect();
    let space = LazySpace {
        space: 7,
        pid: program.pid(),
        missing,
        ranges: vec![area],
        wiped_on_fork: PageSet::new(),
    };
    let (requests, _) = channel();
    let source = Source { requests, asked: Mutex::default(), unwanted: Mutex::default() };
    let error = LazyMemory::start(vec![(space, uffd)], Arc::new(source), None).unwrap_err();
    assert_eq!(error.to_string(), format!("make lazy process {}", program.pid()));
}

#[test]
fn system_calls_wait_for_their_pages() {
    let _alone = alone();
    let mut lazy = Lazy::start("syscalls", 400);
    lazy.go();
    let statistics = lazy.finish();
    assert_eq!(statistics.pages_by_fault, 400);
}

#[test]
fn children_forked_meanwhile_find_every_page() {
    let _alone = alone();
    let mut lazy = Lazy::start("fork", 1500);
    lazy.go();
    // How many are forked before everything is there is a matter of speed.
    assert!(lazy.finish().forks >= 1);
}

#[test]
fn children_forked_during_the_push_find_every_page() {
    let _alone = alone();
    let mut lazy = Lazy::start("fork", 6000);
    lazy.go();
    lazy.push_all(16);
    lazy.finish();
}

#[test]
fn dropped_pages_do_not_come_back() {
    let statistics = works_while_lazy("dontneed", 3200);
    assert!(statistics.pages_discarded > 0, "{statistics:?}");
}

#[test]
fn dropped_pages_do_not_come_back_by_the_push() {
    works_while_pushed("dontneed", 16000);
}

#[test]
fn moved_pages_are_found_at_their_new_place() {
    works_while_lazy("mremap", 3200);
}

#[test]
fn moved_pages_are_found_during_the_push() {
    works_while_pushed("mremap", 16000);
}

#[test]
fn unmapped_pages_stay_away() {
    works_while_lazy("munmap", 3200);
}

#[test]
fn unmapped_pages_stay_away_during_the_push() {
    works_while_pushed("munmap", 16000);
}

#[test]
fn a_mapping_in_pieces_is_filled_all_the_same() {
    let _alone = alone();
    let mut lazy = Lazy::start("mprotect", 3000);
    lazy.go();
    lazy.push_all(64);
    lazy.finish();
}

#[test]
fn threads_children_moves_and_drops_together_lose_nothing() {
    works_while_lazy("storm", 8192);
    works_while_pushed("storm", 8192);
}

#[test]
fn a_quarter_of_a_gigabyte_is_pushed_beside_the_faults() {
    let _alone = alone();
    let mut lazy = Lazy::start("random", 65536);
    lazy.go();
    lazy.push_all(16);
    let statistics = lazy.finish();
    assert_eq!(statistics.pages_by_fault + statistics.pages_by_push, 65536);
}

#[test]
fn nothing_is_registered_when_all_is_there() {
    let _alone = alone();
    let mut lazy = Lazy::start("dontneed", 1600);
    lazy.go();
    lazy.program.expect("wait");
    lazy.push_all(16);
    assert!(lazy.memory.wait(LONG).unwrap());
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", lazy.program.pid())).unwrap();
    assert!(!smaps.lines().any(|line| line.starts_with("VmFlags:") && line.contains(" um")));
    lazy.program.say("look");
    lazy.finish();
}

#[test]
fn a_process_that_ends_ends_the_lazy_phase() {
    let _alone = alone();
    let mut lazy = Lazy::start("random", 1000);
    lazy.program.say("not what it expects");
    let _ = lazy.program.wait();
    assert!(lazy.memory.wait(LONG).unwrap());
}

#[test]
fn without_its_source_a_program_waits_and_goes_on_when_it_is_back() {
    let _alone = alone();
    let mut lazy = Lazy::start("random", 500);
    lazy.memory.abandon();
    lazy.go();
    assert!(!lazy.memory.wait(Duration::from_millis(200)).unwrap());
    assert!(lazy.source.asked.lock().unwrap().is_empty());
    lazy.memory.ask_again(&*lazy.source);
    lazy.finish();
}

#[test]
fn what_a_program_dropped_need_not_be_sent() {
    let _alone = alone();
    let mut lazy = Lazy::start("dontneed", 1600);
    lazy.go();
    lazy.program.expect("wait");
    let unwanted: PageSet = lazy.source.unwanted.lock().unwrap().iter().copied().collect();
    let asked: PageSet = lazy.source.asked.lock().unwrap().iter().copied().collect();
    assert_eq!(unwanted.difference(&asked).pages() + asked.pages(), 1600);
    assert!(unwanted.pages() > 0);
}
