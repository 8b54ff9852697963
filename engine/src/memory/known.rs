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

    /// Of these ranges by rising address, what is known. One step forward for each of them and for
    /// each known run, where [`Self::within`] would look for the beginning every time.
    pub(super) fn within_all(&self, ranges: &[Run]) -> impl Iterator<Item = Run> + '_ {
        let mut both = common(self.sent, ranges);
        both.extend(common(self.stale, ranges));
        both.into_iter()
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

fn common(set: &PageSet, ranges: &[Run]) -> Vec<Run> {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Vec::new() };
    let span = Run::covering(first.address, last.end());
    let mut runs = set.within(span.address, span.pages).peekable();
    let mut common = Vec::new();
    for range in ranges {
        while let Some(run) = runs.peek() {
            let start = run.address.max(range.address);
            let end = run.end().min(range.end());
            if start < end {
                common.push(Run::covering(start, end));
            }
            // What goes on behind this range may lie in the next one too.
            if run.end() > range.end() {
                break;
            }
            runs.next();
        }
    }
    common
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
    fn what_many_ranges_have_in_common_is_what_each_of_them_has() {
        let sent =
            set(&[(0x1000, 0x3000), (0x5000, 0x9000), (0xb000, 0xc000), (0x2_0000, 0x3_0000)]);
        let stale = set(&[(0x2000, 0x6000), (0x2_f000, 0x4_0000)]);
        let known = Known { sent: &sent, stale: &stale };
        let ranges = [(0, 0x1000), (0x2000, 0x6000), (0x7000, 0xb000), (0x2_8000, 0x3_8000)];
        let ranges = ranges.map(|(start, end)| Run::covering(start, end));
        for count in 0..=ranges.len() {
            let one_by_one: PageSet =
                ranges[..count].iter().flat_map(|r| known.within(*r)).collect();
            assert_eq!(known.within_all(&ranges[..count]).collect::<PageSet>(), one_by_one);
        }
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
