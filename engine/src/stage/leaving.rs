//! Stubs that the next layout has no place for.

use super::{Stage, invalid, read_filler, write_filler};
use crate::error::Error;
use crate::image::Layout;
use std::collections::BTreeSet;

impl Stage {
    pub(super) fn remove_all_but(&mut self, layout: &Layout) -> Result<(), Error> {
        let staying = self.staying(layout)?;
        let unwanted = self.layout.processes.iter().map(|process| process.pid);
        let unwanted: Vec<i32> = unwanted.filter(|pid| !staying.contains(pid)).collect();
        // Children before parents, so that each is waited for by the parent it was born to.
        for pid in unwanted.into_iter().rev() {
            let parent = self.layout.process(pid).map(|process| process.ppid);
            if let Some(stub) = self.stubs.remove(&pid) {
                write_filler(&self.filler).remove(stub.space);
                stub.end();
            }
            if let Some(parent) = parent.and_then(|parent| self.stubs.get(&parent)) {
                parent.wait_for_child(pid)?;
            }
        }
        Ok(())
    }

    /// The stubs that stay. One with another space is another process by now, or begins again as a
    /// fork of its parent; and whatever it had made is made again by the new one.
    fn staying(&self, layout: &Layout) -> Result<BTreeSet<i32>, Error> {
        let mut staying = BTreeSet::new();
        for process in &layout.processes {
            let Some(stub) = self.stubs.get(&process.pid) else { continue };
            let is_same = stub.space == process.space;
            if self.stubs.contains_key(&process.ppid) && !staying.contains(&process.ppid) {
                let filler = read_filler(&self.filler);
                if is_same && filler.has(stub.space) && !filler.stored(stub.space)?.is_empty() {
                    return Err(invalid("a process has to be made again, and keeps its pages"));
                }
            } else if is_same {
                staying.insert(process.pid);
            }
        }
        Ok(staying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clocks::Clocks;
    use crate::image::ProcessLayout;
    use crate::memory::mapping_image::{AnonymousImage, BackingImage, MappingImage};
    use crate::memory::{PAGE_BYTES, PageSet, Run, frames};
    use std::path::Path;

    const AT: u64 = 0x7000_0000_0000;
    const PAGES: u64 = 64;

    fn all() -> PageSet {
        [Run { address: AT, pages: PAGES }].into_iter().collect()
    }

    /// Three that nobody has at the moment, from the end that is given out last. Tests that run at
    /// the same time ask for different ones.
    fn free_ids(turn: usize) -> [i32; 3] {
        let last = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
        let last: i32 = last.trim().parse().unwrap();
        let is_free = |pid: &i32| !Path::new(&format!("/proc/{pid}")).exists();
        let mut free = (2..last).rev().filter(is_free).skip(3 * turn);
        std::array::from_fn(|_| free.next().unwrap())
    }

    fn process(pid: i32, ppid: i32, space: u32, forked_from: u32) -> ProcessLayout {
        let mapping = MappingImage {
            start: AT,
            end: AT + PAGES * PAGE_BYTES,
            protection: libc::PROT_READ | libc::PROT_WRITE,
            backing: Some(BackingImage::Anonymous(AnonymousImage::default())),
            ..MappingImage::default()
        };
        ProcessLayout {
            pid,
            ppid,
            exit_signal: libc::SIGCHLD,
            space,
            forked_from,
            tids: vec![pid],
            mappings: vec![mapping],
            ..ProcessLayout::default()
        }
    }

    fn layout(processes: &[ProcessLayout]) -> Layout {
        Layout { processes: processes.to_vec(), ..Layout::default() }
    }

    fn fill(stage: &Stage, space: u32, pages: u64, byte: u8) {
        let bytes = vec![byte; usize::try_from(pages * PAGE_BYTES).unwrap()];
        stage.filler().read().unwrap().data(space, AT, &bytes).unwrap();
    }

    #[test]
    fn a_child_that_begins_again_shares_what_has_landed_in_its_parent() {
        let [root, child, grandchild] = free_ids(0);
        let (first, third) = (process(root, 0, 1, 0), process(grandchild, child, 3, 0));
        let before = layout(&[first.clone(), process(child, root, 2, 0), third.clone()]);
        let mut stage = Stage::begin(&before, Clocks::default(), None).unwrap();
        fill(&stage, 1, PAGES, 7);
        let after = layout(&[first, process(child, root, 4, 1), third]);
        stage.apply(&after).unwrap();
        assert_eq!(stage.pids().len(), 3);
        assert_eq!(frames::alike(root, child, &all(), u64::MAX).unwrap(), all());
        assert!(frames::alike(root, grandchild, &all(), u64::MAX).unwrap().is_empty());
        let stored = stage.filler().read().unwrap().stored(4).unwrap();
        assert_eq!(stored, all(), "zeros and dropped pages are judged by it");

        fill(&stage, 4, 1, 9);
        let mut shared = all();
        shared.remove(AT, 1);
        assert_eq!(frames::alike(root, child, &all(), u64::MAX).unwrap(), shared);
    }

    #[test]
    fn what_a_layout_may_not_ask_for_is_refused() {
        let [root, child, grandchild] = free_ids(1);
        let (first, third) = (process(root, 0, 1, 0), process(grandchild, child, 3, 0));
        let before = layout(&[first.clone(), process(child, root, 2, 0), third.clone()]);
        let mut stage = Stage::begin(&before, Clocks::default(), None).unwrap();
        fill(&stage, 3, PAGES, 7);
        // The grandchild's stub would end with its parent's, and with it pages that were sent.
        let loses = layout(&[first.clone(), process(child, root, 4, 1), third]);
        let error = stage.apply(&loses).unwrap_err();
        assert!(error.source.to_string().contains("keeps its pages"), "{error:?}");
        let stranger = layout(&[first, process(child, root, 4, 77)]);
        let error = stage.apply(&stranger).unwrap_err();
        assert!(error.source.to_string().contains("does not have"), "{error:?}");
    }
}
