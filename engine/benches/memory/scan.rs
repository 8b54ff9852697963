//! Finding what a process has written since the last look. The yardstick is the plain way to ask
//! the kernel about these pages: their array in pagemap, eight bytes a page.

use crate::processor_time::ProcessorTime;
use crate::program::{PAGES, Program};
use criterion::{BatchSize, BenchmarkGroup, Criterion};
use engine::memory::mapping::{self, Mapping};
use engine::memory::tracker::{self, Method, Tracker};
use engine::memory::{PAGE_BYTES, Run};
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

pub(crate) fn bench(criterion: &mut Criterion<ProcessorTime>) {
    let mut program = Program::start();
    let Some(mut tracker) = open_tracker(&program) else { return };
    program.write_every(1);
    let mappings = mapping::read(program.pid()).expect("it lives");
    let first = collect(&mut *tracker, &mappings);
    assert!(first >= PAGES, "{first} pages are seen of {PAGES}");
    let mut group = criterion.benchmark_group("scan");
    let mut bench = |name, step| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || program.write_every(step),
                |()| collect(&mut *tracker, &mappings),
                BatchSize::PerIteration,
            );
        });
    };
    bench("nearly nothing written", usize::try_from(PAGES).expect("few"));
    bench("1 page in 16 written", 16);
    bench("everything written", 1);
    let area = program.area();
    read_pagemap(&mut group, &program, area);
}

fn open_tracker(program: &Program) -> Option<Box<dyn Tracker>> {
    let tracker = match tracker::probe()? {
        Method::WriteProtect => tracker::write_protect(program.pid(), program.userfaultfd()),
        Method::SoftDirty => tracker::soft_dirty(program.pid()),
    };
    Some(tracker.expect("its writes can be tracked"))
}

fn collect(tracker: &mut dyn Tracker, mappings: &[Mapping]) -> u64 {
    let mut runs = 0;
    let collected = tracker.collect(mappings, &mut |run| {
        black_box(run);
        runs += 1;
    });
    black_box(runs);
    collected.expect("it lives").pages
}

fn read_pagemap(group: &mut BenchmarkGroup<'_, ProcessorTime>, program: &Program, area: Run) {
    let pagemap = File::open(format!("/proc/{}/pagemap", program.pid())).expect("it lives");
    let mut entries = vec![0; usize::try_from(area.pages).expect("few") * 8];
    group.bench_function("yardstick pagemap", |bencher| {
        bencher.iter(|| {
            let at = area.address / PAGE_BYTES * 8;
            pagemap.read_exact_at(black_box(&mut entries), at).expect("it is mapped");
        });
    });
}
