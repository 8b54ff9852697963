use super::super::test_program::{Program, Replica};
use super::super::{PAGE_BYTES, mapping};
use super::*;

/// A program under pre-copy and what its destination has.
struct Copying {
    program: Program,
    memory: PrivateMemory,
    replica: Replica,
}

impl Copying {
    fn start(name: &str, seed: u64) -> Option<Self> {
        let program = Program::start_with(name, seed);
        let memory = PrivateMemory::new(program.pid, 0, program.tracker()?);
        let mut copying = Self { program, memory, replica: Replica::default() };
        copying.round();
        Some(copying)
    }

    fn round(&mut self) -> Collected {
        let standstill = self.memory.needs_standstill();
        if standstill {
            self.program.freeze();
        }
        let collected = self.memory.collect(&self.program.mappings()).unwrap();
        if standstill {
            self.program.thaw();
        }
        self.memory.send_stale(While::Running, &mut self.replica).unwrap();
        collected
    }

    fn finish(&mut self) -> Collected {
        self.program.freeze();
        let mappings = self.program.mappings();
        let collected = self.memory.collect_frozen(&mappings, &mut self.replica).unwrap();
        self.memory.send_stale(While::Frozen, &mut self.replica).unwrap();
        self.replica.assert_equals(&self.program, &mappings);
        collected
    }
}

/// Runs the steps in mid-copy, and checks the copy afterwards.
fn survives(steps: &[&str]) -> Option<(Copying, u64)> {
    let mut copying = Copying::start("steps", 1)?;
    let mut address = 0;
    for step in steps {
        address = copying.program.step(step);
    }
    copying.finish();
    // Once more with a round between any two, because each leaves other marks behind.
    let mut rounds = Copying::start("steps", 1)?;
    for step in steps {
        rounds.program.step(step);
        rounds.round();
    }
    rounds.finish();
    Some((copying, address))
}

#[test]
fn what_is_left_alone_is_sent_once() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    copying.program.step("idle");
    copying.round();
    copying.program.step("idle");
    let pages = copying.finish().pages;
    assert!(pages < 40, "{pages} pages for one line of output");
}

#[test]
fn written_pages_are_seen_and_their_neighbours_are_not() {
    let Some((mut copying, region)) = survives(&["write"]) else { return };
    assert_eq!(copying.replica.page(region + 6 * PAGE_BYTES)[0], 7);
    copying.program.thaw();
    copying.program.step("write");
    copying.program.freeze();
    copying.memory.collect(&copying.program.mappings()).unwrap();
    let stale = copying.memory.stale();
    let of_region: u64 = stale.within(region, 64).map(|run| run.pages).sum();
    assert_eq!(of_region, 3);
}

#[test]
fn what_the_kernel_writes_is_seen() {
    survives(&["read_into"]);
}

#[test]
fn a_new_mapping_is_seen() {
    let Some((copying, fresh)) = survives(&["map"]) else { return };
    assert_eq!(copying.replica.page(fresh)[0], 0x11);
}

#[test]
fn a_mapping_over_sent_pages_replaces_them() {
    let Some((copying, over)) = survives(&["map_over"]) else { return };
    assert!(!copying.replica.has(over), "dropped, not stale");
    assert_eq!(copying.replica.page(over + PAGE_BYTES)[0], 9);
}

#[test]
fn unmapped_pages_are_dropped() {
    let Some((copying, hole)) = survives(&["unmap"]) else { return };
    assert!(!copying.replica.has(hole));
}

#[test]
fn moved_pages_arrive_at_their_new_place_and_leave_the_old() {
    let Some((copying, moved)) = survives(&["move", "map"]) else { return };
    drop(copying);
    let Some((copying, moved_again)) = survives(&["move"]) else { return };
    assert_eq!(copying.replica.page(moved_again)[0], 0x5a);
    assert!(moved != 0 && !copying.replica.has(copying.program.address("region")));
}

#[test]
fn split_mappings_stay_tracked() {
    survives(&["split"]);
    survives(&["split", "unsplit", "write"]);
}

#[test]
fn what_a_move_joined_is_tracked_anew() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    copying.program.step("move");
    copying.round();
    assert_ne!(copying.program.step("move_back"), 0);
    copying.program.step("write");
    copying.round();
    let region = copying.program.step("write_again");
    copying.finish();
    for page in [5, 40] {
        assert_eq!(copying.replica.page(region + page * PAGE_BYTES)[1], 8, "page {page}");
    }
}

#[test]
fn what_was_one_mapping_for_the_program_stays_one() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    copying.program.step("reserve");
    copying.round();
    let moved = copying.program.step("move_reserved");
    assert_ne!(moved, 0, "mremap(2) of two mappings fails");
    copying.finish();
    assert_eq!(copying.replica.page(moved)[0], 0x12);
}

#[test]
fn discarded_pages_are_dropped() {
    let Some((copying, discarded)) = survives(&["drop"]) else { return };
    assert!(!copying.replica.has(discarded));
}

#[test]
fn a_discarded_page_that_was_read_again_is_zeros() {
    survives(&["drop_and_read"]);
    survives(&["drop_and_read", "write", "drop", "drop_and_read"]);
}

#[test]
fn a_growing_stack_and_heap_are_seen() {
    let Some((copying, heap)) = survives(&["stack", "brk"]) else { return };
    assert_eq!(copying.replica.page(heap)[0], 0x22);
}

#[test]
fn a_fork_disturbs_nothing() {
    let Some((copying, region)) = survives(&["fork"]) else { return };
    assert_eq!(copying.replica.page(region)[0], 0x5a, "the child wrote its own copy");
    assert_eq!(copying.replica.page(region + 50 * PAGE_BYTES)[0], 8);
}

#[test]
fn a_huge_page_is_split_by_a_write_and_only_the_written_pages_are_sent() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    copying.round();
    copying.program.step("thp");
    let collected = copying.finish();
    // Soft-dirty marks the whole huge page.
    let most = if copying.memory.needs_standstill() { 2 * 512 + 100 } else { 100 };
    assert!(collected.pages < most, "{} pages", collected.pages);
}

#[test]
fn discarded_and_replaced_page_tables_are_dropped_whole() {
    for step in ["thp_drop", "thp_map_over"] {
        let Some((copying, huge)) = survives(&[step]) else { return };
        assert!(!copying.replica.has(huge), "{step}");
    }
    survives(&["thp", "thp_drop", "thp"]);
}

/// "tables" are two times 2 MiB, each below a page table of its own, of single pages.
#[test]
fn pages_whose_table_was_freed_with_them_are_dropped() {
    for step in ["table_drop", "table_map_over"] {
        let Some((copying, gone)) = survives(&[step]) else { return };
        assert!(!copying.replica.has(gone) && !copying.replica.has(gone + 511 * PAGE_BYTES));
        assert!(copying.replica.has(gone + 512 * PAGE_BYTES), "the next table stays");
        survives(&[step, "table_write"]);
    }
}

#[test]
fn the_first_page_of_a_table_is_dropped_alone() {
    let Some((copying, gone)) = survives(&["table_drop_first"]) else { return };
    assert!(!copying.replica.has(gone) && copying.replica.has(gone + PAGE_BYTES));
    survives(&["table_drop_first", "table_drop"]);
}

#[test]
fn a_page_in_the_middle_of_a_table_is_dropped_alone() {
    let Some((copying, gone)) = survives(&["table_drop_inner"]) else { return };
    assert!(!copying.replica.has(gone));
    assert!([1, -1].iter().all(|next| {
        copying.replica.has(gone.wrapping_add_signed(next * PAGE_BYTES.cast_signed()))
    }));
    survives(&["table_drop_inner", "table_drop_first", "table_write"]);
}

#[test]
fn written_copies_of_file_pages_are_carried_and_others_are_not() {
    let Some((copying, file)) = survives(&["file_write"]) else { return };
    assert!(copying.replica.has(file + 2 * PAGE_BYTES));
    assert!(!copying.replica.has(file));
}

#[test]
fn a_discarded_copy_lets_the_file_show_again() {
    let Some((copying, file)) = survives(&["file_write", "file_drop"]) else { return };
    assert!(!copying.replica.has(file + 2 * PAGE_BYTES));
}

#[test]
fn memory_that_cannot_be_tracked_is_sent_every_time() {
    let Some((copying, droppable)) = survives(&["droppable"]) else { return };
    if droppable != 0 {
        assert_eq!(copying.replica.page(droppable)[0], 0x44);
    }
}

#[test]
fn guard_pages_are_nobodys_content() {
    survives(&["guard", "write"]);
}

#[test]
fn the_prediction_counts_what_the_next_round_will_send() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    copying.round();
    copying.program.step("thp");
    copying.program.step("brk");
    copying.program.step("clock");
    copying.program.freeze();
    let mappings = copying.program.mappings();
    let predicted = copying.memory.peek(&mappings).unwrap();
    assert_eq!(predicted, copying.memory.peek(&mappings).unwrap(), "looking changes nothing");
    assert_eq!(predicted, copying.memory.collect(&mappings).unwrap().pages);
}

/// A link that breaks after so many records.
struct Breaking<'a>(usize, &'a mut Replica);

impl PageSink for Breaking<'_> {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0 = self.0.checked_sub(1).ok_or(std::io::ErrorKind::BrokenPipe)?;
        self.1.data(space, address, bytes)
    }
    fn zero(&mut self, space: u32, address: u64, pages: u64) -> std::io::Result<()> {
        self.1.zero(space, address, pages)
    }
    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> std::io::Result<()> {
        self.1.dropped(space, address, pages)
    }
}

#[test]
fn what_is_withdrawn_is_forgotten_there_and_sent_again() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    let region = copying.program.step("write");
    copying.memory.collect(&copying.program.mappings()).unwrap();
    let withdrawn = copying.memory.withdraw(&mut copying.replica).unwrap();
    assert!(withdrawn >= 3, "{withdrawn} pages");
    assert!(!copying.replica.has(region + 5 * PAGE_BYTES) && copying.replica.has(region));
    assert_eq!(copying.memory.withdraw(&mut copying.replica).unwrap(), 0, "once is enough");
    copying.finish();
    assert_eq!(copying.replica.page(region + 5 * PAGE_BYTES)[0], 7);
}

#[test]
fn a_round_that_breaks_half_way_loses_nothing() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    copying.program.step("thp");
    copying.program.step("write");
    copying.memory.collect(&copying.program.mappings()).unwrap();
    let mut breaking = Breaking(1, &mut copying.replica);
    copying.memory.send_stale(While::Running, &mut breaking).unwrap_err();
    assert!(!copying.memory.stale().is_empty());
    copying.finish();
}

#[test]
fn another_program_in_the_same_process_needs_a_new_tracker() {
    let Some(copying) = Copying::start("steps", 1) else { return };
    executes_another(copying);
}

/// As a child does that was just forked: nothing of it was tracked yet.
#[test]
fn another_program_before_the_first_round_needs_a_new_tracker_too() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    let tracker = copying.program.tracker().unwrap();
    copying.memory.replace_tracker(tracker);
    executes_another(copying);
}

fn executes_another(mut copying: Copying) {
    copying.program.execute_again();
    if !copying.memory.needs_standstill() {
        let error = copying.memory.collect(&copying.program.mappings()).unwrap_err();
        assert!(error.is_gone(), "{error:?}");
    }
    let tracker = copying.program.tracker().unwrap();
    copying.memory.replace_tracker(tracker);
    copying.round();
    copying.finish();
}

#[test]
fn a_process_that_is_gone_is_said_to_be_gone() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    let mappings = copying.program.mappings();
    let Copying { program, mut memory, .. } = copying;
    drop(program);
    assert!(memory.collect(&mappings).unwrap_err().is_gone());
    copying = Copying::start("steps", 1).unwrap();
    copying.finish();
}

#[test]
fn a_tracker_leaves_no_trace() {
    let program = Program::start("steps");
    let pid = program.pid;
    let fds = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let watched = || {
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
        smaps.lines().filter(|line| line.starts_with("VmFlags:") && line.contains(" uw")).count()
    };
    let maps = || mapping::refresh(pid, &[]).unwrap();
    let before = (fds(), watched(), maps());
    let Some(tracker) = program.tracker() else { return };
    let mut memory = PrivateMemory::new(pid, 0, tracker);
    memory.collect(&program.mappings()).unwrap();
    assert!(watched() > 0 || memory.needs_standstill());
    drop(memory);
    assert_eq!((fds(), watched(), maps()), before);
}

#[test]
fn reserved_memory_that_is_never_touched_costs_no_page_tables() {
    let Some(mut copying) = Copying::start("steps", 1) else { return };
    let table_kib = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", copying.program.pid));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmPTE:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert!(table_kib() < 1024, "{} KiB for 4 GiB reserved", table_kib());
    copying.finish();
}

/// Everything at once: mappings come and go, move, split and are discarded under a writer,
/// a second thread and forks, while rounds go on. At the end the copy is equal.
#[test]
fn a_storm_is_copied_exactly() {
    for seed in 1..=6 {
        let Some(mut copying) = Copying::start("storm", seed) else { return };
        for round in 0..12 {
            copying.round();
            if round % 3 == 0 {
                let mappings = copying.program.mappings();
                // Between rounds too, and with the program at work.
                if !copying.memory.needs_standstill() {
                    copying.memory.drop_gone(&mappings, &mut copying.replica).unwrap();
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        copying.finish();
        assert!(copying.replica.pages() > 100, "seed {seed} did something");
    }
}
