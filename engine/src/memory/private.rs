//! The account of one process's private memory: what the destination has, and what it lacks.
//!
//! Every page is in one of four states: never there, *sent*, *stale* (there and not sent, or
//! written after it was sent) or gone after it was sent. A page that was collected stays stale
//! until it was really sent, so a round that fails half way loses nothing, and at the freeze the
//! stale pages are exactly the list that goes lazily.

use super::mapping::Mapping;
use super::read::{ReadPages, Reader, While};
use super::tracker::{Collected, Tracker};
use super::{PageRun, PageSet, PageSink};
use crate::error::{Error, Object, OnObject as _};

#[derive(Debug)]
pub struct PrivateMemory {
    pid: i32,
    space: u32,
    tracker: Box<dyn Tracker>,
    reader: Reader,
    sent: PageSet,
    stale: PageSet,
    /// Of `stale`, those known to be zeros.
    zeros: PageSet,
}

impl PrivateMemory {
    pub fn new(pid: i32, space: u32, tracker: Box<dyn Tracker>) -> Self {
        Self {
            pid,
            space,
            tracker,
            reader: Reader::new(pid),
            sent: PageSet::new(),
            stale: PageSet::new(),
            zeros: PageSet::new(),
        }
    }

    /// See [`Tracker::needs_standstill`].
    pub fn needs_standstill(&self) -> bool {
        self.tracker.needs_standstill()
    }

    /// After an execve(2). What was sent of the old memory is known still, and dropped as such.
    pub fn replace_tracker(&mut self, tracker: Box<dyn Tracker>) {
        self.tracker = tracker;
    }

    /// What the destination has, though some of it may be stale.
    pub fn sent(&self) -> &PageSet {
        &self.sent
    }

    /// What the destination lacks, as of the last `collect`.
    pub fn stale(&self) -> &PageSet {
        &self.stale
    }

    /// Adds to `stale` what was written since the last time.
    pub fn collect(&mut self, mappings: &[Mapping]) -> Result<Collected, Error> {
        let Self { tracker, stale, zeros, .. } = self;
        tracker.collect(mappings, &mut |run| {
            stale.insert(run.address, run.pages);
            if run.zero {
                zeros.insert(run.address, run.pages);
            } else {
                zeros.remove(run.address, run.pages);
            }
        })
    }

    /// The last `collect`, of a process that stands still, with mappings that were read while it
    /// did. Afterwards the destination is complete when it has `stale` and has thrown away what
    /// was dropped.
    pub fn collect_frozen(
        &mut self,
        mappings: &[Mapping],
        sink: &mut dyn PageSink,
    ) -> Result<Collected, Error> {
        let collected = self.collect(mappings)?;
        if collected.unlisted_pages > 0 {
            let why = format!("{} pages are in no mapping", collected.unlisted_pages);
            return Err(Error::invalid("account for the memory of", self.object(), why));
        }
        self.drop_gone(mappings, sink)?;
        Ok(collected)
    }

    /// How many pages would have to be sent now: what `collect` would add, and what is left.
    pub fn peek(&mut self, mappings: &[Mapping]) -> Result<u64, Error> {
        Ok(self.tracker.peek(mappings)? + self.stale.pages())
    }

    /// Tells the destination what is gone. Between rounds it only saves memory there.
    pub fn drop_gone(
        &mut self,
        mappings: &[Mapping],
        sink: &mut dyn PageSink,
    ) -> Result<u64, Error> {
        let mut known = self.sent.clone();
        known.insert_all(&self.stale);
        let gone = self.tracker.dropped(mappings, &known)?;
        self.stale.remove_all(&gone);
        self.zeros.remove_all(&gone);
        let dropped = gone.intersection(&self.sent);
        for run in dropped.runs() {
            sink.dropped(self.space, run.address, run.pages)
                .on("send the dropped pages of", || self.object())?;
        }
        self.sent.remove_all(&dropped);
        Ok(dropped.pages())
    }

    pub fn send_stale(
        &mut self,
        during: While,
        sink: &mut dyn PageSink,
    ) -> Result<ReadPages, Error> {
        let all = self.stale.clone();
        self.send(&all, during, sink)
    }

    /// Sends those of `pages` that are stale.
    pub fn send(
        &mut self,
        pages: &PageSet,
        during: While,
        sink: &mut dyn PageSink,
    ) -> Result<ReadPages, Error> {
        let wanted = pages.intersection(&self.stale);
        let runs = self.by_content(&wanted);
        let read = self.reader.read(self.space, runs, during, sink)?;
        self.stale.remove_all(&wanted);
        self.zeros.remove_all(&wanted);
        self.sent.insert_all(&wanted.difference(&read.vanished));
        Ok(read)
    }

    fn by_content(&self, wanted: &PageSet) -> Vec<PageRun> {
        let as_runs = |pages: &PageSet, zero| {
            let of =
                move |run: super::Run| PageRun { address: run.address, pages: run.pages, zero };
            pages.runs().map(of).collect::<Vec<_>>()
        };
        let zeros = wanted.intersection(&self.zeros);
        let mut runs = as_runs(&wanted.difference(&zeros), false);
        runs.extend(as_runs(&zeros, true));
        runs
    }

    fn object(&self) -> Object {
        Object::Process { pid: self.pid }
    }
}

#[cfg(test)]
mod tests {
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
        let Some(mut copying) = Copying::start("steps", 1) else { return };
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
            smaps
                .lines()
                .filter(|line| line.starts_with("VmFlags:") && line.contains(" uw"))
                .count()
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
}
