//! The page stream: blocks of memory to records and back. `cargo xtask bench --micro` compares it.

mod processor_time;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkGroup, Criterion, Throughput};
use processor_time::ProcessorTime;
use protocol::limits::{DATA_PAGES_MAX, PAGE_BYTES};
use protocol::pages::{Codec, Decoder, Encoder, Record};
use std::hint::black_box;
use std::time::Duration;

const BLOCK_BYTES: usize = DATA_PAGES_MAX as usize * PAGE_BYTES;
const TOTAL_BYTES: usize = 16 << 20;
/// What is sent at once.
const BUFFER_BYTES: usize = 1 << 20;
/// What a packet brings with an MTU of 1500.
const PACKET_BYTES: usize = 1400;

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(ProcessorTime)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    encode(&mut criterion);
    decode(&mut criterion);
    criterion.final_summary();
}

fn encode(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(TOTAL_BYTES as u64));
    let mut bench = |name, codec, memory: &[u8]| {
        let mut encoder = Encoder::new(codec).expect("memory for a context");
        let mut out = BytesMut::with_capacity(2 * BUFFER_BYTES);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for parts in memory.chunks(BUFFER_BYTES) {
                    out.clear();
                    encode_blocks(&mut encoder, parts, &mut out);
                    black_box(&out);
                }
            });
        });
    };
    bench("plain", Codec::Plain, &objects());
    bench("zstd", Codec::Zstd, &objects());
    bench("zstd in vain", Codec::Zstd, &noise());
    copy(&mut group);
}

fn decode(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(TOTAL_BYTES as u64));
    for (name, codec) in [("plain", Codec::Plain), ("zstd", Codec::Zstd)] {
        let packets = packets(codec);
        let mut decoder = Decoder::unsliced().expect("memory for a context");
        assert_eq!(decode_packets(&mut decoder, &packets), TOTAL_BYTES);
        group.bench_function(name, |bencher| {
            bencher.iter(|| decode_packets(&mut decoder, &packets));
        });
    }
    copy(&mut group);
}

fn encode_blocks(encoder: &mut Encoder, memory: &[u8], out: &mut BytesMut) {
    for (index, block) in memory.chunks(BLOCK_BYTES).enumerate() {
        encoder.data(1, (index * BLOCK_BYTES) as u64, block, out);
    }
}

fn packets(codec: Codec) -> Vec<Bytes> {
    let mut encoder = Encoder::new(codec).expect("memory for a context");
    let mut out = BytesMut::new();
    encode_blocks(&mut encoder, &objects(), &mut out);
    out.chunks(PACKET_BYTES).map(Bytes::copy_from_slice).collect()
}

fn decode_packets(decoder: &mut Decoder, packets: &[Bytes]) -> usize {
    let mut total = 0;
    for packet in packets {
        decoder.push(packet.clone());
        while let Some(record) = decoder.next_record().expect("records of our own") {
            let Record::Data { bytes, .. } = black_box(record) else { continue };
            total += bytes.len();
        }
    }
    total
}

/// The yardstick of both: as many bytes, block by block within the caches. With memory at either end
/// it would tell of whoever else uses that.
fn copy(group: &mut BenchmarkGroup<'_, ProcessorTime>) {
    let (from, mut into) = (vec![1_u8; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    group.bench_function("yardstick memcpy", |bencher| {
        bencher.iter(|| {
            for _ in 0..TOTAL_BYTES / BLOCK_BYTES {
                into.copy_from_slice(black_box(&from));
                black_box(&mut into);
            }
        });
    });
}

/// Like a heap of small objects: an address, a length and eight bytes of text, in turn.
fn objects() -> Vec<u8> {
    let text = *b"migrate ";
    let object = |number: u64| {
        let address = 0x5600_0000_0000 + (number & 0xf_ffff) * 16;
        [address.to_ne_bytes(), (number & 0x7f).to_ne_bytes(), text].concat()
    };
    let mut memory: Vec<u8> = numbers().take(TOTAL_BYTES / 24 + 1).flat_map(object).collect();
    memory.truncate(TOTAL_BYTES);
    memory
}

fn noise() -> Vec<u8> {
    numbers().take(TOTAL_BYTES / 8).flat_map(u64::to_ne_bytes).collect()
}

/// Xorshift, the same at every run.
fn numbers() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9e37_79b9_7f4a_7c15), |last: &u64| {
        let mut next = *last;
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        Some(next)
    })
}
