//! Work on many things of one kind, shared among the processors.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread;

/// What `work` makes of each, in their order. Nobody gets fewer than `share_min`, so that a few are
/// not worth a thread: one costs about 50 us. Where none can be made we do its share.
pub(crate) fn spread<T: Sync, R: Send>(
    things: &[T],
    share_min: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let work_through = |share: &[T]| share.iter().map(&work).collect::<Vec<R>>();
    // To ask for the processors reads files.
    if things.len() <= share_min {
        return work_through(things);
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let share = things.len().div_ceil(processors).max(share_min);
    let (ours, theirs) = things.split_at(share.min(things.len()));
    let work_through = &work_through;
    thread::scope(|scope| {
        let others: Vec<_> = theirs
            .chunks(share)
            .map(|share| {
                let other = thread::Builder::new().spawn_scoped(scope, move || work_through(share));
                (share, other)
            })
            .collect();
        let mut all = work_through(ours);
        for (share, other) in others {
            all.extend(match other {
                Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(_) => work_through(share),
            });
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
