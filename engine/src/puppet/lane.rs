//! The parts of the arena: one thread has all of it, or several have a lane each.

use super::way_back::FRAME_BYTES_MAX;
use super::{ARENA_LENGTH, Batch};
use crate::arch::x86_64::blob;
use std::ops::Range;

/// The code lies in the first page.
const CODE_BYTES: usize = 4096;
const LANE_BYTES: usize = 64 << 10;
const LANE_ENTRIES_BYTES: usize = 12 << 10;

/// How many threads can be under way at a time. More than run at once: each has its turn while
/// the next ones are prepared.
pub(super) const LANES: usize = (ARENA_LENGTH - CODE_BYTES) / LANE_BYTES;

/// Offsets in the arena of what one thread uses.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) frame: usize,
    pub(super) entries: Range<usize>,
    pub(super) bytes: Range<usize>,
}

impl Lane {
    /// All that there is, for one thread alone.
    pub(super) const WHOLE: Self =
        Self::between(CODE_BYTES, CODE_BYTES + FRAME_BYTES_MAX, 256 << 10, ARENA_LENGTH);

    /// The one with this number, below [`LANES`].
    pub(super) const fn narrow(number: usize) -> Self {
        let start = CODE_BYTES + number * LANE_BYTES;
        let entries = start + FRAME_BYTES_MAX;
        Self::between(start, entries, entries + LANE_ENTRIES_BYTES, start + LANE_BYTES)
    }

    const fn between(frame: usize, entries: usize, bytes: usize, end: usize) -> Self {
        Self { frame, entries: entries..bytes, bytes: bytes..end }
    }

    /// How many calls have room at once.
    pub(super) fn entries_max(&self) -> usize {
        self.entries.len() / blob::ENTRY_BYTES
    }

    /// Whether a batch can be walked here in one go.
    pub(super) fn has_room_for(&self, batch: &Batch) -> bool {
        batch.entries.len() <= self.entries_max() && batch.bytes.len() <= self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_lie_side_by_side_behind_the_code() {
        let mut end = CODE_BYTES;
        for lane in (0..LANES).map(Lane::narrow) {
            assert_eq!(lane.frame, end);
            assert_eq!(lane.entries.start, lane.frame + FRAME_BYTES_MAX);
            assert!(lane.entries_max() > 100 && lane.bytes.len() > 8 << 10, "{lane:?}");
            end = lane.bytes.end;
        }
        assert!(end <= ARENA_LENGTH && LANES > 4, "{LANES} lanes to {end}");
    }
}
