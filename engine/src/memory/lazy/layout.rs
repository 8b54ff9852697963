//! Where the pages of a space lie now, and where they lay at the source.
//!
//! The source knows a page by its *origin*, the address it had when the tree was frozen. The
//! program goes on: it moves ranges (mremap) and gives them back (munmap). Each page of the
//! source is in at most one place here, so a list of pieces that were moved as a whole says
//! everything.

use crate::memory::page_set::{PAGE_BYTES, Run};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    by_local: BTreeMap<u64, Piece>,
    /// Start of the origin to start of the piece.
    by_origin: BTreeMap<u64, u64>,
}

/// Bytes that lie here as they lay at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) local: u64,
    pub(super) origin: u64,
    pub(super) bytes: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.local + self.bytes
    }

    /// The part of it from `start` to `end`, if that is anything.
    pub(super) fn cut(&self, start: u64, end: u64) -> Option<Self> {
        let (start, end) = (start.max(self.local), end.min(self.end()));
        (start < end).then(|| Self {
            local: start,
            origin: self.origin + (start - self.local),
            bytes: end - start,
        })
    }

    pub(super) fn origin_run(&self) -> Run {
        Run { address: self.origin, pages: self.bytes / PAGE_BYTES }
    }
}

impl Layout {
    /// Everything lies where it lay.
    pub(super) fn unmoved(ranges: &[Run]) -> Self {
        let mut layout = Self::default();
        for run in ranges {
            layout.put(Piece { local: run.address, origin: run.address, bytes: run.bytes() });
        }
        layout
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        self.by_local.values().copied()
    }

    pub(super) fn origin_of(&self, local: u64) -> Option<u64> {
        self.piece_at(local).map(|piece| piece.origin + (local - piece.local))
    }

    /// The piece that this local address lies in.
    pub(super) fn piece_at(&self, local: u64) -> Option<Piece> {
        let (_, piece) = self.by_local.range(..=local).next_back()?;
        (local < piece.end()).then_some(*piece)
    }

    /// Where this run of the source lies now, as far as it still lies anywhere.
    pub(super) fn places_of(&self, origin: Run) -> Vec<Piece> {
        let before = self.by_origin.range(..=origin.address).next_back();
        let after = self.by_origin.range(origin.address + 1..origin.end());
        before
            .into_iter()
            .chain(after)
            .filter_map(|(_, local)| {
                let piece = self.by_local[local];
                // A cut by origin is a cut by place, moved: done without negative numbers.
                let start = origin.address.max(piece.origin);
                let end = origin.end().min(piece.origin + piece.bytes);
                let shift = start.saturating_sub(piece.origin);
                (start < end).then(|| Piece {
                    local: piece.local + shift,
                    origin: start,
                    bytes: end - start,
                })
            })
            .collect()
    }

    /// The program unmapped this range: what lay there will not be asked for again.
    pub(super) fn unmap(&mut self, start: u64, end: u64) -> Vec<Piece> {
        let touched: Vec<Piece> = self.overlapping(start, end);
        for piece in &touched {
            self.take(piece);
            piece.cut(piece.local, start).into_iter().for_each(|rest| self.put(rest));
            piece.cut(end, piece.end()).into_iter().for_each(|rest| self.put(rest));
        }
        touched.iter().filter_map(|piece| piece.cut(start, end)).collect()
    }

    /// The program moved this range. Returns what lay at its new place before.
    pub(super) fn remap(&mut self, from: u64, to: u64, bytes: u64) -> Vec<Piece> {
        let moved = self.unmap(from, from + bytes);
        let replaced = self.unmap(to, to + bytes);
        for piece in moved {
            self.put(Piece { local: to + (piece.local - from), ..piece });
        }
        replaced
    }

    pub(super) fn overlapping(&self, start: u64, end: u64) -> Vec<Piece> {
        let before = self.by_local.range(..start).next_back().map(|(_, piece)| *piece);
        let after = self.by_local.range(start..end.max(start)).map(|(_, piece)| *piece);
        before.into_iter().filter(|piece| piece.end() > start).chain(after).collect()
    }

    fn take(&mut self, piece: &Piece) {
        self.by_local.remove(&piece.local);
        self.by_origin.remove(&piece.origin);
    }

    fn put(&mut self, piece: Piece) {
        self.by_local.insert(piece.local, piece);
        self.by_origin.insert(piece.origin, piece.local);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Local page to origin page, the slow way.
    type Model = HashMap<u64, u64>;

    fn byte(page: u64) -> u64 {
        page * PAGE_BYTES
    }

    #[derive(Clone, Debug)]
    enum Step {
        Unmap(u64, u64),
        Remap(u64, u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..60_u64, 1..8_u64).prop_map(|(page, pages)| Step::Unmap(page, pages)),
            (0..60_u64, 0..60_u64, 1..8_u64).prop_map(|(from, to, n)| Step::Remap(from, to, n)),
        ]
    }

    fn apply(layout: &mut Layout, model: &mut Model, step: &Step) {
        match *step {
            Step::Unmap(page, pages) => {
                layout.unmap(byte(page), byte(page + pages));
                model.retain(|at, _| !(page..page + pages).contains(at));
            }
            // The kernel refuses a move onto itself.
            Step::Remap(from, to, pages) if from.abs_diff(to) < pages => {}
            Step::Remap(from, to, pages) => {
                layout.remap(byte(from), byte(to), byte(pages));
                let moved: Vec<_> = (0..pages).map(|n| model.remove(&(from + n))).collect();
                for (n, origin) in (0..pages).zip(moved) {
                    model.remove(&(to + n));
                    origin.map(|origin| model.insert(to + n, origin));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn follows_every_page_through_moves_and_unmaps(
            steps in prop::collection::vec(step(), 0..40)
        ) {
            let mut layout = Layout::unmoved(&[Run { address: byte(8), pages: 40 }]);
            let mut model: Model = (8..48).map(|page| (page, page)).collect();
            steps.iter().for_each(|step| apply(&mut layout, &mut model, step));
            for page in 0..80 {
                let expected = model.get(&page).map(|origin| byte(*origin));
                prop_assert_eq!(layout.origin_of(byte(page)), expected);
            }
            let mut back = Model::new();
            for piece in layout.places_of(Run { address: byte(10), pages: 30 }) {
                for n in 0..piece.bytes / PAGE_BYTES {
                    back.insert(piece.local / PAGE_BYTES + n, piece.origin / PAGE_BYTES + n);
                }
            }
            model.retain(|_, origin| (10..40).contains(origin));
            prop_assert_eq!(back, model);
        }
    }
}
