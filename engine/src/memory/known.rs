//! The pages that an account is about: sent, or found and not sent yet.

use super::{PAGE_BYTES, PageSet, Run};

/// What one page table maps.
pub(super) const TABLE_BYTES: u64 = 2 << 20;
/// Above all addresses, and the first byte of a page.
const END: u64 = u64::MAX - (PAGE_BYTES - 1);

/// Looked at in place: in the freeze, copying a set costs as much as the process has pages.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub sent: &'a PageSet,
    pub stale: &'a PageSet,
}

impl Known<'_> {
    /// A page that is sent and stale comes twice.
    pub(super) fn within(&self, run: Run) -> impl Iterator<Item = Run> + '_ {
        let stale = self.stale.within(run.address, run.pages);
        self.sent.within(run.address, run.pages).chain(stale).filter(|run| run.pages > 0)
    }

    /// What lies in none of these.
    pub(super) fn outside(&self, of: &PageSet) -> PageSet {
        let mut outside = PageSet::new();
        let mut from = 0;
        for run in of.runs() {
            outside.extend(self.within(Run::covering(from, run.address)));
            from = run.end();
        }
        outside.extend(self.within(Run::covering(from, END)));
        outside
    }

    /// The first page of every 2 MiB in which there is one.
    pub(super) fn first_of_each_table(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        let mut from = 0;
        while let Some(page) = self.first_from(from) {
            pages.push(page);
            from = page - page % TABLE_BYTES + TABLE_BYTES;
        }
        pages
    }

    fn first_from(&self, address: u64) -> Option<u64> {
        let firsts = [self.sent, self.stale].map(|set| set.first_from(address));
        firsts.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(runs: &[(u64, u64)]) -> PageSet {
        runs.iter().map(|&(start, end)| Run::covering(start, end)).collect()
    }

    #[test]
    fn every_table_with_a_known_page_is_named_once_by_the_first_of_them() {
        let sent = set(&[(0x1000, 0x3000), (0x20_5000, 0x60_0000)]);
        let stale = set(&[(0x20_2000, 0x20_3000), (0x80_0000, 0x80_1000)]);
        let known = Known { sent: &sent, stale: &stale };
        assert_eq!(known.first_of_each_table(), [0x1000, 0x20_2000, 0x40_0000, 0x80_0000]);
    }

    #[test]
    fn what_lies_outside_is_before_between_and_after() {
        let sent = set(&[(0x1000, 0x9000)]);
        let stale = set(&[(0x4000, 0x5000), (0xf000, 0x1_0000)]);
        let known = Known { sent: &sent, stale: &stale };
        let mapped = set(&[(0x2000, 0x4000), (0x6000, 0xa000)]);
        let expected = set(&[(0x1000, 0x2000), (0x4000, 0x6000), (0xf000, 0x1_0000)]);
        assert_eq!(known.outside(&mapped), expected);
        assert_eq!(known.outside(&PageSet::new()).pages(), 9);
    }
}
