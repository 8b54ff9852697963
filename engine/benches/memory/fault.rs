//! A program touches a page that is missing, and goes on when it is there: the time in between, by
//! the program's own clock. A thread that knows every page stands for the source and the network.
//! The yardstick is a line through a pipe to the same program, and one back.
//!
//! All on one processor: what another one needs to wake up is more than all the rest, and depends
//! on how deep it sleeps.

use crate::processor_time::ProcessorTime;
use crate::program::Program;
use criterion::Criterion;
use engine::memory::lazy::{LazyMemory, LazySpace, PageSource};
use engine::memory::{PAGE_BYTES, PageSet, Run};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Pages that one fault brings.
const BLOCK: usize = 16;
/// For the faults of one program.
const PAGES: usize = 256 * BLOCK;
const LONG: Duration = Duration::from_secs(60);

pub(crate) fn bench(criterion: &mut Criterion<ProcessorTime>) {
    stay_on_one_processor();
    let mut group = criterion.benchmark_group("fault");
    let all = |area: Run| PageSet::from_iter([area]);
    let last = |area: Run| PageSet::from_iter([Run { address: area.end() - PAGE_BYTES, pages: 1 }]);
    group.bench_function("16 pages of the source", |bencher| {
        bencher.iter_custom(|faults| take(faults, all));
    });
    group.bench_function("zeros", |bencher| {
        bencher.iter_custom(|faults| take(faults, last));
    });
    let mut program = Program::start();
    group.bench_function("yardstick pipe", |bencher| {
        bencher.iter_custom(|answers| {
            let began = Instant::now();
            (0..answers).for_each(|_| program.answer());
            began.elapsed()
        });
    });
}

/// For good, and whatever is started from here on.
fn stay_on_one_processor() {
    let ourselves = Pid::from_raw(0);
    let allowed = sched_getaffinity(ourselves).expect("of this thread");
    let is_allowed = |number: &usize| allowed.is_set(*number).unwrap_or(false);
    let first = (0..CpuSet::count()).find(is_allowed).expect("one that it runs on");
    let mut one = CpuSet::new();
    one.set(first).expect("there is room for it");
    sched_setaffinity(ourselves, &one).expect("it is allowed");
}

/// So many faults of as many programs as that needs.
fn take(faults: u64, missing: impl Fn(Run) -> PageSet) -> Duration {
    let mut nanos = 0;
    let mut left = usize::try_from(faults).expect("a number of faults");
    while left > 0 {
        let now = left.min(PAGES / BLOCK - 1);
        nanos += take_some(now, &missing);
        left -= now;
    }
    Duration::from_nanos(nanos)
}

fn take_some(faults: usize, missing: impl Fn(Run) -> PageSet) -> u64 {
    let mut program = Program::start();
    let area = Run { pages: PAGES as u64, ..program.area() };
    let (memory, requests) = start(&program, area, missing(area));
    let memory = &memory;
    thread::scope(|scope| {
        scope.spawn(move || answer(&requests, memory));
        let nanos = program.touch_every(BLOCK, faults * BLOCK);
        let rest = memory.missing().remove(&SPACE).unwrap_or_default();
        rest.runs().for_each(|run| deliver(memory, run));
        assert!(memory.wait(LONG).expect("serving goes well"), "every page is there");
        nanos
    })
}

const SPACE: u32 = 1;

fn start(program: &Program, area: Run, missing: PageSet) -> (LazyMemory, Receiver<Run>) {
    let space = LazySpace {
        space: SPACE,
        pid: program.pid(),
        missing,
        ranges: vec![area],
        wiped_on_fork: PageSet::new(),
    };
    let (requests, receiver) = channel();
    let spaces = vec![(space, program.userfaultfd())];
    let memory = LazyMemory::start(spaces, Arc::new(Source(requests)), None);
    (memory.expect("its memory can be lazy"), receiver)
}

struct Source(Sender<Run>);

impl PageSource for Source {
    fn request(&self, _space: u32, address: u64, pages: u32) {
        self.0.send(Run { address, pages: pages.into() }).expect("it is answered to the end");
    }
}

/// Ends with the thread that serves, which has the sender.
fn answer(requests: &Receiver<Run>, memory: &LazyMemory) {
    requests.iter().for_each(|run| deliver(memory, run));
}

fn deliver(memory: &LazyMemory, run: Run) {
    let bytes = vec![1; usize::try_from(run.bytes()).expect("small")];
    memory.deliver(SPACE, run.address, &bytes).expect("pages are delivered");
}
