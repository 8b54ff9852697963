//! Work on many things of one kind, shared among the processors.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread;

/// What `work` makes of each, in their order. Nobody gets fewer than `share_min`, so that a few are
/// not worth a thread: one costs about 50 us.
pub(crate) fn spread<T: Sync, R: Send>(
    things: &[T],
    share_min: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let share = things.len().div_ceil(processors).max(share_min);
    let mut shares = things.chunks(share);
    let ours = shares.next().unwrap_or_default();
    let work = &work;
    thread::scope(|scope| {
        let others: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(work).collect::<Vec<R>>()))
            .collect();
        let mut all: Vec<R> = ours.iter().map(work).collect();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_in_its_order() {
        for count in [0, 1, 9, 10, 11, 1000] {
            let things: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = (0..count).map(|thing| thing * 2).collect();
            assert_eq!(spread(&things, 10, |thing| thing * 2), doubled);
        }
    }
}
