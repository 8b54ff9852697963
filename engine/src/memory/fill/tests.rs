//! A program with mappings of every protection, filled from outside.

use super::*;
use crate::memory::lazy_program::{Program, hexadecimal, pattern};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::thread;

const PAGES: u64 = 3000;

/// Four areas: writable, read-only, without access, and the text of the program.
fn program() -> (Program, Vec<Run>) {
    let mut program = Program::start("areas", PAGES);
    let areas = (0..4).map(|index| Run {
        address: hexadecimal(program.hear().trim_start_matches("area ")),
        pages: if index == 3 { 2 } else { PAGES },
    });
    let areas: Vec<Run> = areas.collect();
    program.expect("wait");
    (program, areas)
}

fn filler(program: &Program, file_backed: PageSet) -> Filler {
    let mut filler = Filler::new();
    filler.add_process(1, program.pid(), file_backed).expect("the program may be filled");
    filler
}

fn read(program: &Program, run: Run) -> Vec<u8> {
    let memory = File::open(format!("/proc/{}/mem", program.pid())).expect("readable");
    let mut bytes = vec![0; usize::try_from(run.bytes()).unwrap()];
    memory.read_exact_at(&mut bytes, run.address).expect("mapped");
    bytes
}

fn resident_pages(program: &Program) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", program.pid())).unwrap();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn every_private_mapping_takes_its_pages() {
    let (program, areas) = program();
    let filler = filler(&program, PageSet::new());
    for area in &areas {
        filler.data(1, area.address, &pattern(*area)).expect("filled");
    }
    for area in &areas {
        assert!(read(&program, *area) == pattern(*area), "{area:?}");
    }
    assert_eq!(filler.stored(1).unwrap(), areas.iter().copied().collect());
}

#[test]
fn a_batch_goes_on_behind_what_only_the_slow_way_can_write() {
    let (program, areas) = program();
    let filler = filler(&program, PageSet::new());
    // Single pages of all areas in turn: every call of the fast way ends early.
    let pages: Vec<Run> = (0..PAGES)
        .step_by(2)
        .flat_map(|n| areas[..3].iter().map(move |area| (area.address, n)))
        .map(|(address, n)| Run { address: address + n * PAGE_BYTES, pages: 1 })
        .collect();
    let bytes: Vec<(u64, Vec<u8>)> = pages.iter().map(|run| (run.address, pattern(*run))).collect();
    let pieces: Vec<(u64, &[u8])> = bytes.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    filler.data_batch(1, &pieces).expect("filled");
    assert!(pages.iter().all(|run| read(&program, *run) == pattern(*run)));
}

#[test]
fn zeros_cost_nothing_where_nothing_was_written() {
    let (program, areas) = program();
    let filler = filler(&program, PageSet::new());
    let before = resident_pages(&program);
    filler.zero(1, areas[0].address, PAGES).unwrap();
    assert_eq!(resident_pages(&program), before);
    assert_eq!(filler.stored(1).unwrap().pages(), PAGES);
}

#[test]
fn zeros_replace_what_was_written_before() {
    let (program, areas) = program();
    let filler = filler(&program, PageSet::new());
    let written = Run { address: areas[0].address + 10 * PAGE_BYTES, pages: 40 };
    filler.data(1, written.address, &pattern(written)).unwrap();
    filler.zero(1, areas[0].address, PAGES).unwrap();
    assert!(read(&program, areas[0]).iter().all(|byte| *byte == 0));
}

#[test]
fn a_zero_page_in_a_file_mapping_is_written() {
    let (program, areas) = program();
    let filler = filler(&program, [areas[3]].into_iter().collect());
    assert!(read(&program, areas[3]).iter().any(|byte| *byte != 0), "the text of a program");
    filler.zero(1, areas[3].address, 2).unwrap();
    assert!(read(&program, areas[3]).iter().all(|byte| *byte == 0));
}

#[test]
fn dropped_pages_are_left_for_the_process_to_give_back() {
    let (program, areas) = program();
    let filler = filler(&program, PageSet::new());
    let start = areas[0].address;
    let page = |n, pages| Run { address: start + n * PAGE_BYTES, pages };
    filler.data(1, start, &pattern(page(0, 20))).unwrap();
    filler.dropped(1, start, 100).unwrap();
    assert_eq!(filler.to_drop(1).unwrap(), [page(0, 20)]);
    // Some of them come again, with content or as zeros.
    filler.data(1, page(3, 1).address, &pattern(page(3, 1))).unwrap();
    filler.zero(1, page(5, 2).address, 2).unwrap();
    assert_eq!(filler.to_drop(1).unwrap(), [page(0, 3), page(4, 1), page(7, 13)]);
    assert_eq!(filler.stored(1).unwrap().pages(), 3);
    assert!(read(&program, page(5, 2)).iter().all(|byte| *byte == 0));
    filler.forget(1, start, 100).unwrap();
    assert!(filler.to_drop(1).unwrap().is_empty());
}

#[test]
fn several_streams_fill_their_own_slices_at_once() {
    let (program, areas) = program();
    let filler = filler(&program, PageSet::new());
    thread::scope(|scope| {
        for slice in 0..4 {
            let (filler, area) = (&filler, areas[0]);
            scope.spawn(move || {
                for n in (slice * 16..PAGES).step_by(64) {
                    let run =
                        Run { address: area.address + n * PAGE_BYTES, pages: 16.min(PAGES - n) };
                    filler.data(1, run.address, &pattern(run)).expect("filled");
                }
            });
        }
    });
    assert!(read(&program, areas[0]) == pattern(areas[0]));
    assert_eq!(filler.stored(1).unwrap().pages(), PAGES);
}

#[test]
fn a_hole_in_the_process_is_an_error_that_names_it() {
    let (program, _) = program();
    let filler = filler(&program, PageSet::new());
    let error = filler.data(1, 0x1000_0000, &[1; 4096]).expect_err("nothing is mapped there");
    let place =
        format!("write the memory of mapping 0x10000000-0x10001000 of process {}", program.pid());
    assert_eq!(error.to_string(), place);
    assert!(filler.stored(1).unwrap().is_empty());
}

#[test]
fn an_unknown_space_is_refused() {
    assert!(Filler::new().data(3, 0, &[0; 4096]).is_err());
}

#[test]
fn a_shared_object_takes_data_zeros_and_holes() {
    let object = File::from(memfd_create("object", MFdFlags::MFD_CLOEXEC).unwrap());
    object.set_len(100 * PAGE_BYTES).unwrap();
    let mut filler = Filler::new();
    filler.add_object(9, object.try_clone().unwrap().into());
    let all = Run { address: 0, pages: 100 };
    filler.data(9, 0, &pattern(all)).unwrap();
    filler.zero(9, 10 * PAGE_BYTES, 20).unwrap();
    filler.dropped(9, 50 * PAGE_BYTES, 50).unwrap();
    let mut expected = pattern(all);
    expected[10 * 4096..30 * 4096].fill(0);
    expected[50 * 4096..].fill(0);
    let mut bytes = vec![1; expected.len()];
    object.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == expected);
    assert_eq!(object.metadata().unwrap().blocks() * 512, 30 * PAGE_BYTES);
    assert_eq!(filler.stored(9).unwrap().pages(), 50);
}
