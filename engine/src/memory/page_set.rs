//! A set of pages, kept as runs: a gigabyte that is missing as a whole costs one entry.
//!
//! Pages are named by the address of their first byte. Every operation costs the logarithm of the
//! number of runs, plus the runs that it swallows.

use std::collections::BTreeMap;
use std::fmt;

/// Bytes in a page. Huge pages are counted in these too, as the kernel's interfaces do.
pub const PAGE_BYTES: u64 = 4096;

/// Pages in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    pub address: u64,
    pub pages: u64,
}

impl Run {
    /// The whole pages that these bytes touch.
    pub fn covering(start: u64, end: u64) -> Self {
        let address = start - start % PAGE_BYTES;
        let pages = if start < end { (end - address).div_ceil(PAGE_BYTES) } else { 0 };
        Self { address, pages }
    }

    pub fn end(&self) -> u64 {
        self.address + self.bytes()
    }

    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES
    }
}

/// Runs never overlap and never touch: what touches is one run.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PageSet {
    /// Address of the first byte to the address after the last one.
    runs: BTreeMap<u64, u64>,
    pages: u64,
}

impl PageSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many pages are in it.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn contains(&self, address: u64) -> bool {
        self.run_at(address).is_some()
    }

    /// The whole run that this page lies in.
    pub fn run_at(&self, address: u64) -> Option<Run> {
        let (&start, &end) = self.runs.range(..=address).next_back()?;
        (address < end).then(|| run(start, end))
    }

    /// The first page at or above `address`.
    pub fn first_from(&self, address: u64) -> Option<u64> {
        match self.run_at(address) {
            Some(_) => Some(address),
            None => self.runs.range(address..).next().map(|(&start, _)| start),
        }
    }

    pub fn insert(&mut self, address: u64, pages: u64) {
        let (mut start, mut end) = bounds(address, pages);
        if start == end {
            return;
        }
        for (first, last) in self.meeting(start, end) {
            self.take(first, last);
            (start, end) = (start.min(first), end.max(last));
        }
        self.put(start, end);
    }

    pub fn remove(&mut self, address: u64, pages: u64) {
        let (start, end) = bounds(address, pages);
        for (first, last) in self.meeting(start, end) {
            if start == end || first >= end || last <= start {
                continue; // it only touches
            }
            self.take(first, last);
            self.put(first, start.max(first));
            self.put(end.min(last), last);
        }
    }

    /// Every run, by rising address.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = Run> + '_ {
        self.runs.iter().map(|(&start, &end)| run(start, end))
    }

    /// The parts of `address..` that are in the set.
    pub fn within(&self, address: u64, pages: u64) -> impl Iterator<Item = Run> + '_ {
        let (start, end) = bounds(address, pages);
        let before = self.run_at(start).map_or(start, |run| run.address);
        self.runs
            .range(before..end.max(before))
            .map(move |(&first, &last)| run(first.max(start), last.min(end)))
    }

    /// The parts of `address..` that are not in the set.
    pub fn missing_within(&self, address: u64, pages: u64) -> Vec<Run> {
        let (mut start, end) = bounds(address, pages);
        let mut missing = Vec::new();
        for present in self.within(address, pages) {
            missing.push(run(start, present.address));
            start = present.end();
        }
        missing.push(run(start, end));
        missing.retain(|run| run.pages > 0);
        missing
    }

    pub fn insert_all(&mut self, other: &Self) {
        other.runs().for_each(|run| self.insert(run.address, run.pages));
    }

    pub fn remove_all(&mut self, other: &Self) {
        other.runs().for_each(|run| self.remove(run.address, run.pages));
    }

    /// What is here and not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.remove_all(other);
        rest
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.runs().flat_map(|run| other.within(run.address, run.pages)).collect()
    }

    /// The runs that overlap or touch `start..end`.
    fn meeting(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let before = self.runs.range(..start).next_back().filter(|(_, last)| **last >= start);
        let after = self.runs.range(start..=end);
        before.into_iter().chain(after).map(|(&first, &last)| (first, last)).collect()
    }

    fn take(&mut self, start: u64, end: u64) {
        self.runs.remove(&start);
        self.pages -= (end - start) / PAGE_BYTES;
    }

    fn put(&mut self, start: u64, end: u64) {
        if start < end {
            self.runs.insert(start, end);
            self.pages += (end - start) / PAGE_BYTES;
        }
    }
}

fn run(start: u64, end: u64) -> Run {
    Run { address: start, pages: (end - start) / PAGE_BYTES }
}

fn bounds(address: u64, pages: u64) -> (u64, u64) {
    debug_assert!(address.is_multiple_of(PAGE_BYTES), "a page is named by its first byte");
    (address, address + pages * PAGE_BYTES)
}

impl FromIterator<Run> for PageSet {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut set = Self::new();
        set.extend(runs);
        set
    }
}

impl Extend<Run> for PageSet {
    fn extend<I: IntoIterator<Item = Run>>(&mut self, runs: I) {
        runs.into_iter().for_each(|run| self.insert(run.address, run.pages));
    }
}

impl fmt::Debug for PageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs.iter().map(|(start, end)| format!("{start:#x}-{end:#x}"));
        f.debug_set().entries(runs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    type Model = HashSet<u64>;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64),
        Remove(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let span = || (0..64_u64, 0..12_u64);
        prop_oneof![
            span().prop_map(|(page, pages)| Step::Insert(page, pages)),
            span().prop_map(|(page, pages)| Step::Remove(page, pages)),
        ]
    }

    fn both(steps: &[Step]) -> (PageSet, Model) {
        let (mut set, mut model) = (PageSet::new(), Model::new());
        for step in steps {
            match *step {
                Step::Insert(page, pages) => {
                    set.insert(page * PAGE_BYTES, pages);
                    model.extend(page..page + pages);
                }
                Step::Remove(page, pages) => {
                    set.remove(page * PAGE_BYTES, pages);
                    model.retain(|at| !(page..page + pages).contains(at));
                }
            }
        }
        (set, model)
    }

    fn pages_of(runs: impl IntoIterator<Item = Run>) -> Model {
        let mut pages = Model::new();
        for run in runs {
            for page in 0..run.pages {
                assert!(pages.insert(run.address / PAGE_BYTES + page), "a page came twice");
            }
        }
        pages
    }

    proptest! {
        #[test]
        fn holds_what_a_set_of_single_pages_holds(steps in prop::collection::vec(step(), 0..60)) {
            let (set, model) = both(&steps);
            prop_assert_eq!(&pages_of(set.runs()), &model);
            prop_assert_eq!(set.pages(), model.len() as u64);
            for page in 0..80 {
                prop_assert_eq!(set.contains(page * PAGE_BYTES), model.contains(&page));
                let next = model.iter().copied().filter(|at| *at >= page).min();
                prop_assert_eq!(set.first_from(page * PAGE_BYTES), next.map(|at| at * PAGE_BYTES));
            }
        }

        #[test]
        fn runs_never_touch_each_other(steps in prop::collection::vec(step(), 0..60)) {
            let runs: Vec<_> = both(&steps).0.runs().collect();
            for pair in runs.windows(2) {
                prop_assert!(pair[0].end() < pair[1].address);
            }
        }

        #[test]
        fn a_window_splits_into_what_is_in_and_what_is_not(
            steps in prop::collection::vec(step(), 0..60), page in 0..64_u64, pages in 0..20_u64
        ) {
            let (set, model) = both(&steps);
            let window: Model = (page..page + pages).collect();
            let inside = pages_of(set.within(page * PAGE_BYTES, pages));
            let outside = pages_of(set.missing_within(page * PAGE_BYTES, pages));
            prop_assert_eq!(inside, &window & &model);
            prop_assert_eq!(outside, &window - &model);
        }

        #[test]
        fn two_sets_combine_like_sets(
            a in prop::collection::vec(step(), 0..40), b in prop::collection::vec(step(), 0..40)
        ) {
            let ((a, model_a), (b, model_b)) = (both(&a), both(&b));
            prop_assert_eq!(pages_of(a.difference(&b).runs()), &model_a - &model_b);
            prop_assert_eq!(pages_of(a.intersection(&b).runs()), &model_a & &model_b);
            let mut union = a.clone();
            union.insert_all(&b);
            prop_assert_eq!(pages_of(union.runs()), &model_a | &model_b);
        }
    }

    #[test]
    fn covering_takes_every_page_that_a_byte_touches() {
        assert_eq!(Run::covering(4095, 4097), Run { address: 0, pages: 2 });
        assert_eq!(Run::covering(4096, 8192), Run { address: 4096, pages: 1 });
        assert_eq!(Run::covering(5000, 5000), Run { address: 4096, pages: 0 });
    }
}
