//! The yardstick of what copies: memcpy(3) of as many bytes, block by block within the caches. With
//! memory at either end it would tell of whoever else uses that.

use crate::processor_time::ProcessorTime;
use criterion::BenchmarkGroup;
use engine::memory::DATA_BYTES_MAX;
use std::hint::black_box;

pub(crate) const TOTAL_BYTES: usize = 16 << 20;

pub(crate) fn bench(group: &mut BenchmarkGroup<'_, ProcessorTime>) {
    let (from, mut into) = (vec![1_u8; DATA_BYTES_MAX], vec![0; DATA_BYTES_MAX]);
    group.bench_function("yardstick memcpy", |bencher| {
        bencher.iter(|| {
            for _ in 0..TOTAL_BYTES / DATA_BYTES_MAX {
                into.copy_from_slice(black_box(&from));
                black_box(&mut into);
            }
        });
    });
}
