//! Which processes of an image begin as forks of their parents again, and so go on sharing with
//! them what they shared when they were stored: one copy for all, until it is written.
//!
//! What two spaces have at the same address in the same place of the image was one page. A child is
//! forked when its parent's pages are in place, so a tree is staged in *generations*: first whoever
//! begins empty, then their forks, then the forks of these.

use super::store::Store;
use super::{Layout, ProcessLayout};
use crate::memory::PageSet;
use crate::source::{WORTH_PAGES, can_be_made_anew};
use std::collections::BTreeMap;

/// Says of each process whether it begins as a fork; whatever was said before is forgotten.
pub(super) fn mark(layout: &mut Layout, store: &Store) {
    let origin = |index| parent_to_share_with(layout, index, store).map_or(0, |(space, _)| space);
    let origins: Vec<u32> = (0..layout.processes.len()).map(origin).collect();
    for (process, forked_from) in layout.processes.iter_mut().zip(origins) {
        process.forked_from = forked_from;
    }
}

/// Pages that need no memory of their own.
pub(super) fn shared_pages(layout: &Layout, store: &Store) -> u64 {
    let shared = |index| parent_to_share_with(layout, index, store);
    let shared = (0..layout.processes.len()).filter_map(shared);
    shared.map(|(_, pages)| pages.pages()).sum()
}

/// The parent's space, and what the child shares with it.
fn parent_to_share_with(layout: &Layout, index: usize, store: &Store) -> Option<(u32, PageSet)> {
    let child = &layout.processes[index];
    let is_parent = |other: &&ProcessLayout| other.pid == child.ppid && other.pid != child.pid;
    let parent = layout.processes.iter().find(is_parent)?;
    if parent.is_zombie || child.is_zombie {
        return None;
    }
    let shared = store.shared(parent.space, child.space);
    let is_worth_it = shared.pages() >= WORTH_PAGES && can_be_made_anew(&layout.processes, index);
    is_worth_it.then_some((parent.space, shared))
}

/// What to stage one after the other. Each has what the one before it had.
pub(super) fn generations(layout: &Layout) -> Vec<Layout> {
    let mut generation_of: BTreeMap<i32, usize> = BTreeMap::new();
    for process in &layout.processes {
        let of_parent = generation_of.get(&process.ppid).copied().unwrap_or(0);
        generation_of.insert(process.pid, of_parent + usize::from(process.forked_from != 0));
    }
    let last = generation_of.values().copied().max().unwrap_or(0);
    let until = |generation| {
        let is_in = |process: &&ProcessLayout| generation_of[&process.pid] <= generation;
        let processes = layout.processes.iter().filter(is_in).cloned().collect();
        Layout { processes, ..layout.clone() }
    };
    (0..=last).map(until).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, ppid: i32, forked_from: u32) -> ProcessLayout {
        ProcessLayout { pid, ppid, forked_from, ..ProcessLayout::default() }
    }

    fn pids(layout: &Layout) -> Vec<i32> {
        layout.processes.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn whoever_begins_empty_comes_first_and_then_fork_by_fork() {
        let processes = vec![
            process(10, 1, 0),
            process(11, 10, 1),
            process(12, 11, 0),
            process(13, 12, 3),
            process(14, 10, 0),
        ];
        let layout = Layout { processes, ..Layout::default() };
        let generations: Vec<_> = generations(&layout).iter().map(pids).collect();
        assert_eq!(generations, [vec![10, 14], vec![10, 11, 12, 14], vec![10, 11, 12, 13, 14]]);
    }
}
