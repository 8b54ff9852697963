//! Where to look closer: every page that was written since it was marked is in it, and so is every
//! page without a table entry in a table that is there.
//!
//! The kernel answers this one question without looking at the pages themselves: 1 ns a page, and 8
//! where it was written; whether it is there too costs 2 ns more, and whose it is (FILE) 22 to 31 in
//! all. It may not protect, because holes are in the answer too.

use super::super::{PAGE_BYTES, PageSet, Run};
use super::{Query, there};
use crate::sys::pagemap::{Categories, Pagemap, Region};
use std::num::NonZero;
use std::{io, thread};

/// A thread costs 0.1 ms to make, in which another one looks at this much.
const BYTES_PER_THREAD: u64 = 512 << 20;

/// The suspects in `ranges`, by rising address.
pub(super) fn find(pid: i32, ranges: &PageSet) -> io::Result<Vec<Run>> {
    let bytes = ranges.pages() * PAGE_BYTES;
    let cores = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let shares = shares_of(ranges, (bytes / BYTES_PER_THREAD).clamp(1, cores));
    let Some((last, others)) = shares.split_last() else { return Ok(Vec::new()) };
    let found = thread::scope(|scope| {
        let helpers: Vec<_> =
            others.iter().map(|share| scope.spawn(move || in_share(pid, share))).collect();
        let of_last = in_share(pid, last);
        let mut all = Vec::new();
        for helper in helpers {
            all.push(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all.push(of_last);
        all
    });
    let mut joined = Joined::default();
    for run in found.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter().flatten() {
        joined.push(run);
    }
    Ok(joined.0)
}

/// Of these, where a page is there that was written. The holes of a heap are suspects all of them,
/// and to ask whose a page is costs 30 ns each, this 3 to 10 ns.
pub(super) fn written(pagemap: &mut Pagemap, suspects: &[Run]) -> io::Result<Vec<Run>> {
    let mut written = Joined::default();
    for run in suspects {
        let query = Query { all: Categories::WRITTEN, ..there(run.address, run.end()) };
        pagemap.scan(&query, &mut |region: Region| {
            written.push(Run::covering(region.start, region.end));
        })?;
    }
    Ok(written.0)
}

/// Cuts the ranges into `count` lists of about the same length.
fn shares_of(ranges: &PageSet, count: u64) -> Vec<Vec<Run>> {
    let share_pages = ranges.pages().div_ceil(count).max(1);
    let mut shares = Vec::new();
    let mut share = Vec::new();
    let mut room = share_pages;
    for mut rest in ranges.runs() {
        while rest.pages > room {
            share.push(Run { pages: room, ..rest });
            shares.push(std::mem::take(&mut share));
            rest = Run::covering(rest.address + room * PAGE_BYTES, rest.end());
            room = share_pages;
        }
        room -= rest.pages;
        share.push(rest);
    }
    shares.push(share);
    shares
}

fn in_share(pid: i32, share: &[Run]) -> io::Result<Vec<Run>> {
    let mut pagemap = Pagemap::open(pid)?;
    let mut suspects = Joined::default();
    for run in share {
        let (all, tell) = (Categories::WRITTEN, Categories::WRITTEN);
        let query = Query { all, tell, any: Categories::NONE, ..there(run.address, run.end()) };
        pagemap.scan(&query, &mut |region: Region| {
            suspects.push(Run::covering(region.start, region.end));
        })?;
    }
    Ok(suspects.0)
}

/// Ranges by rising address, of which near ones are joined: a short range costs less to scan than
/// another system call.
#[derive(Debug, Default)]
struct Joined(Vec<Run>);

const GAP_BYTES_MAX: u64 = 64 * PAGE_BYTES;

impl Joined {
    fn push(&mut self, run: Run) {
        match self.0.last_mut() {
            // A running program's mappings change while they are scanned one after the other, so
            // a region may begin below the end of the one before.
            Some(last) if run.address.saturating_sub(last.end()) <= GAP_BYTES_MAX => {
                let start = last.address.min(run.address);
                *last = Run::covering(start, last.end().max(run.end()));
            }
            _ => self.0.push(run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_alike_and_together_are_the_whole() {
        let runs = [(0, 5), (100, 1), (200, 30), (300, 2)];
        let ranges: PageSet = runs
            .map(|(page, pages)| Run { address: page * PAGE_BYTES, pages })
            .into_iter()
            .collect();
        for count in 1..=6 {
            let shares = shares_of(&ranges, count);
            assert_eq!(shares.len() as u64, count);
            let most = ranges.pages().div_ceil(count);
            assert!(shares.iter().all(|s| s.iter().map(|r| r.pages).sum::<u64>() <= most));
            assert_eq!(shares.concat().into_iter().collect::<PageSet>(), ranges);
        }
    }

    #[test]
    fn near_ranges_are_joined_and_far_ones_are_not() {
        let mut joined = Joined::default();
        let page = |number: u64| Run { address: number * PAGE_BYTES, pages: 1 };
        [0, 64, 63, 500].map(page).into_iter().for_each(|run| joined.push(run));
        assert_eq!(joined.0, [Run { address: 0, pages: 65 }, page(500)]);
    }
}
