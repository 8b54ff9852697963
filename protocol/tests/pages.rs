//! Page records: what is written is read, and what was not written is refused.
#![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use protocol::limits::{DATA_PAGES_MAX, ROUNDS_MAX, RUN_PAGES_MAX, SPACES_MAX};
use protocol::pages::{
    Codec, Decoder, Encoder, HEADER_BYTES, PageError, Record, Run, slice_of, slices,
};
use protocol::stream::Bulk;

const PAGE: usize = 4096;

/// Bytes that compress about as memory does (`noise` 0) or not at all.
fn pages(count: usize, noise: u64, seed: u64) -> Vec<u8> {
    let mut random = seed | 1;
    let mut byte = |at: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if noise == 0 { (at / 64) as u8 } else { random as u8 }
    };
    (0..count * PAGE).map(&mut byte).collect()
}

fn decoder() -> Decoder {
    Decoder::unsliced().expect("zstd has memory")
}

fn encoder(codec: Codec) -> Encoder {
    Encoder::new(codec).expect("zstd has memory")
}

fn decoded(wire: &[u8], piece: usize) -> Result<Vec<Record>, PageError> {
    let mut decoder = decoder();
    let mut records = Vec::new();
    for piece in wire.chunks(piece) {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(record) = decoder.next_record()? {
            records.push(record);
        }
        assert!(decoder.pending_bytes() < HEADER_BYTES + DATA_PAGES_MAX as usize * PAGE);
    }
    Ok(records)
}

fn one(codec: Codec, bytes: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    encoder(codec).data(3, 0x20_0000, bytes, &mut wire);
    wire
}

#[test]
fn every_kind_of_record_comes_back_in_pieces_of_any_size() {
    for codec in [Codec::Plain, Codec::Zstd] {
        let mut encoder = encoder(codec);
        let mut wire = BytesMut::new();
        let (soft, hard) = (pages(16, 0, 1), pages(3, 1, 2));
        encoder.data(1, 0x1000, &hard, &mut wire);
        encoder.zero(2, 0x2000, 5, &mut wire);
        encoder.data(3, 0x20_0000, &soft, &mut wire);
        encoder.dropped(4, 0x3000, 6, &mut wire);
        encoder.stale(5, 0x4000, 7, &mut wire);
        encoder.end(9, &mut wire);
        let expected = vec![
            Record::Data { space: 1, address: 0x1000, bytes: hard.into() },
            Record::Zero(Run { space: 2, address: 0x2000, pages: 5 }),
            Record::Data { space: 3, address: 0x20_0000, bytes: soft.into() },
            Record::Dropped(Run { space: 4, address: 0x3000, pages: 6 }),
            Record::Stale(Run { space: 5, address: 0x4000, pages: 7 }),
            Record::End { round: 9 },
        ];
        for piece in [1, 7, 31, 32, 33, 1200, 70_000, wire.len()] {
            assert_eq!(decoded(&wire, piece).unwrap(), expected, "{codec:?}, pieces of {piece}");
        }
    }
}

#[test]
fn the_layout_is_what_it_has_always_been() {
    let mut wire = BytesMut::new();
    let mut encoder = encoder(Codec::Plain);
    encoder.zero(0x0102, 0x7fff_0000_1000, 5, &mut wire);
    encoder.end(7, &mut wire);
    let hex: String = wire.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "020000000201000000100000ff7f0000050000000000000003d6c85c9a687054\
         05000000000000000000000000000000070000000000000091c03537a4d1b2d8"
    );
    let data = one(Codec::Plain, &[0xab; PAGE]);
    let hex: String = data[..HEADER_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "010000000300000000002000000000000100000000100000b5df4b872153034c");
}

#[test]
fn what_does_not_shrink_travels_plain() {
    let soft = one(Codec::Zstd, &pages(16, 0, 1));
    let hard = one(Codec::Zstd, &pages(16, 1, 1));
    assert!(soft.len() < 8 * PAGE && soft[1] == Codec::Zstd as u8);
    assert!(hard.len() == HEADER_BYTES + 16 * PAGE && hard[1] == Codec::Plain as u8);
}

#[test]
fn bytes_that_came_in_one_piece_are_not_copied() {
    let wire = one(Codec::Plain, &pages(16, 1, 1)).freeze();
    let mut decoder = decoder();
    decoder.push(wire.clone());
    let Some(Record::Data { bytes, .. }) = decoder.next_record().unwrap() else {
        panic!("no data")
    };
    assert_eq!(bytes.as_ptr(), wire[HEADER_BYTES..].as_ptr());
}

#[test]
fn any_flipped_bit_is_seen() {
    for codec in [Codec::Plain, Codec::Zstd] {
        let wire = one(codec, &pages(2, 0, 1));
        for at in (0..HEADER_BYTES).chain([HEADER_BYTES, wire.len() / 2, wire.len() - 1]) {
            for bit in 0..8 {
                let mut broken = wire.clone();
                broken[at] ^= 1 << bit;
                // A greater length makes it wait for bytes that never come.
                let read = decoded(&broken, 9999);
                assert!(!matches!(read, Ok(ref records) if !records.is_empty()), "{at} {bit}");
            }
        }
    }
}

#[test]
fn a_page_on_a_stream_that_is_not_its_own_is_refused() {
    let wire = one(Codec::Plain, &pages(1, 1, 1)).freeze();
    let own = slice_of(3, 0x20_0000, 4);
    for index in 0..4 {
        let mut decoder = Decoder::new(Bulk { index, of: 4 }).unwrap();
        decoder.push(wire.clone());
        let wrong = Err(PageError::WrongStream { space: 3, address: 0x20_0000 });
        assert!(if index == own {
            decoder.next_record().is_ok()
        } else {
            decoder.next_record() == wrong
        });
    }
}

/// A header as an enemy would write it, with nothing behind.
fn forged(kind: u8, codec: u8, space: u32, address: u64, pages: u32, encoded: u32) -> Vec<u8> {
    let mut header = vec![kind, codec, 0, 0];
    header.extend(space.to_le_bytes());
    header.extend(address.to_le_bytes());
    header.extend(pages.to_le_bytes());
    header.extend(encoded.to_le_bytes());
    header.extend([0; 8]);
    header
}

#[test]
fn impossible_headers_are_refused_before_their_bytes_come() {
    let cases = [
        (forged(0, 0, 0, 0, 1, 4096), "unknown kind"),
        (forged(6, 0, 0, 0, 1, 0), "unknown kind"),
        (forged(1, 2, 0, 0, 1, 4096), "unknown kind"),
        (forged(2, 1, 0, 0, 1, 0), "unknown kind"),
        (forged(1, 0, 0, 0, 17, 17 * 4096), "announces"),
        (forged(1, 0, 0, 0, u32::MAX, u32::MAX), "announces"),
        (forged(1, 1, 0, 0, 1, 4096), "announces"),
        (forged(1, 1, 0, 0, 1, 0), "announces"),
        (forged(2, 0, 0, 0, 1, 1), "announces"),
        (forged(2, 0, 0, 0, 0, 0), "cannot be"),
        (forged(2, 0, 0, 0, RUN_PAGES_MAX + 1, 0), "cannot be"),
        (forged(2, 0, 0, 0x1000, RUN_PAGES_MAX, 0), "cannot be"),
        (forged(2, 0, 0, 0x1001, 1, 0), "cannot be"),
        (forged(3, 0, 0, u64::MAX - 4095, 1, 0), "cannot be"),
        (forged(4, 0, SPACES_MAX, 0x1000, 1, 0), "cannot be"),
        (forged(5, 0, 1, 0, 1, 0), "cannot be"),
        (forged(5, 0, 0, 0, ROUNDS_MAX + 1, 0), "ends round"),
        (forged(2, 0, 0, 0x1000, 1, 0), "changed on its way"),
    ];
    for (header, why) in cases {
        let error = decoded(&header, header.len()).unwrap_err().to_string();
        assert!(error.contains(why), "{error} / {why}");
    }
}

#[test]
fn a_block_that_decompresses_to_another_length_is_refused() {
    let compressed = zstd::bulk::compress(&[7; 2 * PAGE], 1).unwrap();
    for pages in [1, 3] {
        let mut wire = forged(1, 1, 0, 0, pages, compressed.len() as u32);
        wire.extend(&compressed);
        let refused = Err(PageError::Compression { space: 0, address: 0 });
        assert_eq!(decoded(&wire, wire.len()), refused);
    }
}

#[test]
fn the_tally_counts_pages_and_bytes() {
    let mut encoder = encoder(Codec::Plain);
    let mut wire = BytesMut::new();
    encoder.data(0, 0x1000, &pages(3, 1, 1), &mut wire);
    encoder.zero(0, 0x10_0000, 10_000, &mut wire);
    encoder.dropped(0, 0x8000, 2, &mut wire);
    encoder.stale(0, 0x8000, 4, &mut wire);
    let tally = encoder.take_tally();
    let counted = [tally.pages, tally.zero_pages, tally.dropped_pages, tally.stale_pages];
    assert_eq!(counted, [3, 10_000, 2, 4]);
    assert_eq!((tally.bytes_raw, tally.bytes_wire), (3 * 4096, wire.len() as u64));
    assert_eq!(encoder.take_tally(), Default::default());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(wire in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decoded(&wire, 13);
    }

    #[test]
    fn no_header_makes_the_decoder_panic(
        kind in 0_u8..7, codec in 0_u8..3, space: u32, address: u64, pages in 0_u32..600,
        encoded in 0_u32..70_000,
    ) {
        let mut wire = forged(kind, codec, space, address & !0xfff, pages, encoded);
        wire.resize(wire.len() + encoded as usize, 0x55);
        let _ = decoded(&wire, 4096);
    }

    #[test]
    fn slices_cover_a_run_exactly(space: u32, page in 0_u64..1 << 36, pages in 0_u64..5000) {
        let mut next = page * 4096;
        for run in slices(space, page * 4096, pages) {
            prop_assert_eq!(run.address, next);
            next += u64::from(run.pages) * 4096;
        }
        prop_assert_eq!(next, (page + pages) * 4096);
    }
}
