//! Streams of page records: what a peer says, and what we wrote with some of its bytes changed.

#![no_main]

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use protocol::pages::{Codec, Decoder, Encoder};
use protocol::stream::Bulk;

#[derive(Arbitrary, Debug)]
enum Written<'a> {
    Data { space: u32, page: u32, bytes: &'a [u8] },
    Zero { space: u32, page: u32, pages: u16 },
    Dropped { space: u32, page: u32, pages: u16 },
    Stale { space: u32, page: u32, pages: u16 },
    End { round: u8 },
    Raw { bytes: &'a [u8] },
}

#[derive(Arbitrary, Debug)]
struct Stream<'a> {
    written: Vec<Written<'a>>,
    is_compressed: bool,
    changed: Vec<(u16, u8)>,
    piece_bytes: u16,
    index: u8,
    of: u8,
}

fn address(page: u32) -> u64 {
    u64::from(page) << 12
}

fn write(stream: &Stream<'_>) -> Vec<u8> {
    let codec = if stream.is_compressed { Codec::Zstd } else { Codec::Plain };
    let mut encoder = Encoder::new(codec).expect("there is memory");
    let mut wire = BytesMut::new();
    for written in stream.written.iter().take(32) {
        match *written {
            Written::Data { space, page, bytes } => {
                let mut whole = bytes.to_vec();
                whole.resize(bytes.len().clamp(1, 1 << 16).next_multiple_of(4096), 0);
                encoder.data(space % (1 << 16), address(page), &whole, &mut wire);
            }
            Written::Zero { space, page, pages } => {
                encoder.zero(space % (1 << 16), address(page), pages.into(), &mut wire);
            }
            Written::Dropped { space, page, pages } => {
                encoder.dropped(space % (1 << 16), address(page), pages.into(), &mut wire);
            }
            Written::Stale { space, page, pages } => {
                encoder.stale(space % (1 << 16), address(page), pages.into(), &mut wire);
            }
            Written::End { round } => encoder.end(u32::from(round % 100), &mut wire),
            Written::Raw { bytes } => wire.extend_from_slice(bytes),
        }
    }
    let mut wire = wire.to_vec();
    for (at, byte) in &stream.changed {
        if let Some(place) = wire.get_mut(usize::from(*at)) {
            *place = *byte;
        }
    }
    wire
}

fuzz_target!(|stream: Stream<'_>| {
    let of = u32::from(stream.of % 16) + 1;
    let slices = Bulk { index: u32::from(stream.index) % of, of };
    let mut decoder = Decoder::new(slices).expect("there is memory");
    let wire = Bytes::from(write(&stream));
    let step = usize::from(stream.piece_bytes).max(1);
    for at in (0..wire.len()).step_by(step) {
        decoder.push(wire.slice(at..wire.len().min(at + step)));
        loop {
            match decoder.next_record() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.pending_bytes() <= step + 32 + (1 << 17), "what is held is bounded");
    }
});
