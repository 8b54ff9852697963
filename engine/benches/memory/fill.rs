//! Writing the blocks of a round into a process that stands still, as a stream brings them.

use crate::copy::{self, TOTAL_BYTES};
use crate::processor_time::ProcessorTime;
use crate::program::Program;
use criterion::{BatchSize, Criterion, Throughput};
use engine::memory::fill::Filler;
use engine::memory::{DATA_BYTES_MAX, PageSet};

/// Blocks that a destination writes together, at most.
const BATCH: usize = 32;

pub(crate) fn bench(criterion: &mut Criterion<ProcessorTime>) {
    let mut program = Program::start();
    let mut group = criterion.benchmark_group("fill");
    group.throughput(Throughput::Bytes(TOTAL_BYTES as u64));
    let bytes = vec![1; TOTAL_BYTES];
    group.bench_function("untouched pages", |bencher| {
        bencher.iter_batched(
            || (program.replace_area().address, filler(&program)),
            |(address, filler)| fill(&filler, address, &bytes),
            BatchSize::PerIteration,
        );
    });
    let (address, filler) = (program.area().address, filler(&program));
    group.bench_function("pages of earlier rounds", |bencher| {
        bencher.iter(|| fill(&filler, address, &bytes));
    });
    copy::bench(&mut group);
}

fn filler(program: &Program) -> Filler {
    let mut filler = Filler::new();
    filler.add_process(1, program.pid(), PageSet::new()).expect("it lives");
    filler
}

fn fill(filler: &Filler, address: u64, bytes: &[u8]) {
    let blocks = bytes.chunks(DATA_BYTES_MAX).enumerate();
    let blocks = blocks.map(|(index, block)| (address + (index * DATA_BYTES_MAX) as u64, block));
    for batch in blocks.collect::<Vec<_>>().chunks(BATCH) {
        filler.data_batch(1, batch).expect("it lives");
    }
}
