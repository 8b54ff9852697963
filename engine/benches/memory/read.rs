//! Bringing pages of a running process into a sink: the batches, the look for shared pages,
//! process_vm_readv(2), and the look for zeros.

use crate::copy::{self, TOTAL_BYTES};
use crate::processor_time::ProcessorTime;
use crate::program::Program;
use criterion::{Criterion, Throughput};
use engine::memory::read::{Pages, Reader, While};
use engine::memory::{PAGE_BYTES, PageRun, PageSink};
use std::hint::black_box;
use std::io;

pub(crate) fn bench(criterion: &mut Criterion<ProcessorTime>) {
    let mut program = Program::start();
    program.write_every(1);
    let address = program.area().address;
    let mut reader = Reader::new(program.pid(), Pages::OfItsOwn);
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(TOTAL_BYTES as u64));
    let mut bench = |name, runs: &[PageRun]| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let runs = runs.iter().copied();
                let read = reader.read(1, runs, While::Running, &mut Nowhere).expect("it lives");
                assert_eq!(read.data_pages, PAGES);
            });
        });
    };
    bench("in a row", &[PageRun { address, pages: PAGES, zero: false }]);
    let every_second = (0..PAGES).map(|page| address + 2 * page * PAGE_BYTES);
    let scattered = every_second.map(|address| PageRun { address, pages: 1, zero: false });
    bench("every second page", &scattered.collect::<Vec<_>>());
    copy::bench(&mut group);
}

const PAGES: u64 = TOTAL_BYTES as u64 / PAGE_BYTES;

struct Nowhere;

impl PageSink for Nowhere {
    fn data(&mut self, _space: u32, _address: u64, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }

    fn zero(&mut self, _space: u32, _address: u64, _pages: u64) -> io::Result<()> {
        Ok(())
    }

    fn dropped(&mut self, _space: u32, _address: u64, _pages: u64) -> io::Result<()> {
        Ok(())
    }
}
