//! Telling pages of zeros from others, page by page.

use crate::copy::{self, TOTAL_BYTES};
use crate::processor_time::ProcessorTime;
use criterion::{Criterion, Throughput};
use engine::memory::read::is_zero;
use std::hint::black_box;

const PAGE: usize = 4096;
/// A batch of the reader.
const BUFFER_BYTES: usize = 1 << 20;

pub(crate) fn bench(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = criterion.benchmark_group("zero check");
    group.throughput(Throughput::Bytes(TOTAL_BYTES as u64));
    let mut bench = |name, buffer: &[u8], zeros: usize| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..TOTAL_BYTES / BUFFER_BYTES {
                    assert_eq!(zero_pages(black_box(buffer)), zeros);
                }
            });
        });
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    bench("zeros", &buffer, BUFFER_BYTES / PAGE);
    buffer.iter_mut().step_by(PAGE).for_each(|first| *first = 1);
    bench("data", &buffer, 0);
    copy::bench(&mut group);
}

fn zero_pages(buffer: &[u8]) -> usize {
    buffer.chunks_exact(PAGE).filter(|page| is_zero(page)).count()
}
