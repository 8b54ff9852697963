//! When to stop copying and freeze.
//!
//! After each round it is known how long the last pages took and how many were written meanwhile.
//! From that the freeze is predicted: what it always costs, plus what would have to be copied in
//! it. Copying goes on while it makes the freeze shorter and it is still too long. A program that
//! writes faster than the link carries would never get there, so it is also found out when rounds
//! stop helping; then the rest follows lazily or, when that was ruled out, in the freeze.

use crate::limits::{PAUSE_MAX, ROUNDS_MAX};
use crate::message::Lazy;
use std::fmt;

/// What the operator asked for, and what is known before the first round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    pub downtime_ns_max: u64,
    /// Rounds while the program runs; the one in the freeze is not counted.
    pub rounds_max: u32,
    pub lazy: Lazy,
    /// What the freeze costs without a single page: stopping and capturing every thread, building,
    /// and the round trips of the handover.
    pub fixed_ns: u64,
}

/// What is known of a round once the destination has stored it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Pages that were sent with their bytes.
    pub pages: u64,
    /// From its first scan until everything was stored.
    pub duration_ns: u64,
    /// Pages that were written since that scan, as far as now known.
    pub dirty_pages: u64,
    /// Pages that were left to a later round, because most of them need not be sent then: those of
    /// a process that is to be forked from its parent when the parent's pages have landed.
    pub held_back_pages: u64,
    /// Pages whose content is to be compared in the freeze, whether or not they were written.
    pub compared_pages: u64,
    /// Nothing was sent but what cannot follow later; what was stale is forgotten there.
    pub withdrew: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Copy another round, after letting the program run for a while.
    Round { after_ms: u64, predicted_ns: Option<u64> },
    /// What is dirty is to follow lazily, and most of it was sent in vain: the destination forgets
    /// it while the program still runs. In the freeze that would cost half a microsecond a page.
    Withdraw { predicted_ns: u64 },
    /// With `lazy`, what is dirty is only listed in the freeze and follows afterwards.
    Freeze { reason: Reason, predicted_ns: u64, lazy: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    UnderTarget,
    /// The target is below what the freeze costs without pages, and pages no longer matter.
    NothingLeftToGain,
    RoundsStoppedHelping,
    RoundsSpent,
    EverythingLazy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnderTarget => "the freeze will be short enough",
            Self::NothingLeftToGain => "what is left no longer matters to the length of the freeze",
            Self::RoundsStoppedHelping => "the program writes faster than it can be copied",
            Self::RoundsSpent => "there were as many rounds as allowed",
            Self::EverythingLazy => "every page was to come lazily",
        })
    }
}

/// Rounds smaller than this are mostly latency and say little about throughput.
const TELLING_PAGES: u64 = 1024;

/// A page, when there is nothing to go by: about 200 MB/s.
const GUESS_NS_PER_PAGE: u64 = 20_000;

/// A page that is compared: 0.25 ms a MiB.
const COMPARE_NS: u64 = 1000;

/// A round helps when it leaves less than this share of what the one before left.
const HELPS_BELOW_PERCENT: u128 = 80;

/// Below this much, forgetting costs less than a round.
const WITHDRAWN_PAGES_MIN: u64 = 4096;

/// Rounds in a row that have to fail to help; one alone may be a burst of writing.
const FAILURES_IN_A_ROW: usize = 2;

pub fn next(goal: &Goal, rounds: &[Round]) -> Next {
    if goal.lazy == Lazy::Always {
        let reason = Reason::EverythingLazy;
        return Next::Freeze { reason, predicted_ns: goal.fixed_ns, lazy: true };
    }
    let (rounds, withdrew) = match rounds.split_last() {
        Some((last, before)) if last.withdrew => (before, true),
        _ => (rounds, false),
    };
    let Some(last) = rounds.last() else {
        return Next::Round { after_ms: 0, predicted_ns: None };
    };
    let predicted_ns = predict(goal, rounds, last);
    match stop(goal, rounds, predicted_ns) {
        Some(reason) => match freeze(goal, last, reason, predicted_ns) {
            Next::Freeze { lazy: true, predicted_ns, .. }
                if !withdrew && is_worth_withdrawing(last) =>
            {
                Next::Withdraw { predicted_ns }
            }
            freeze => freeze,
        },
        None => Next::Round { after_ms: pause_ms(rounds, last), predicted_ns: Some(predicted_ns) },
    }
}

fn predict(goal: &Goal, rounds: &[Round], last: &Round) -> u64 {
    let pages = last.dirty_pages.saturating_add(last.held_back_pages);
    let pages_ns = pages.saturating_mul(ns_per_page(rounds, last));
    unavoidable_ns(goal, last).saturating_add(pages_ns)
}

/// What no further round would spare.
fn unavoidable_ns(goal: &Goal, last: &Round) -> u64 {
    goal.fixed_ns.saturating_add(last.compared_pages.saturating_mul(COMPARE_NS))
}

/// From the last round if it says enough, for links and programs change; else from all.
fn ns_per_page(rounds: &[Round], last: &Round) -> u64 {
    let telling = if last.pages >= TELLING_PAGES { std::slice::from_ref(last) } else { rounds };
    let pages = telling.iter().fold(0_u64, |sum, round| sum.saturating_add(round.pages));
    let time = telling.iter().fold(0_u64, |sum, round| sum.saturating_add(round.duration_ns));
    time.checked_div(pages).unwrap_or(GUESS_NS_PER_PAGE).max(1)
}

/// Whether the next round is the last one that is allowed: nothing may be held back in it. The
/// round in the freeze needs a number as well.
pub fn is_last(goal: &Goal, rounds: &[Round]) -> bool {
    rounds.len().saturating_add(1) >= rounds_max(goal)
}

fn rounds_max(goal: &Goal) -> usize {
    goal.rounds_max.min(ROUNDS_MAX - 1) as usize
}

fn stop(goal: &Goal, rounds: &[Round], predicted_ns: u64) -> Option<Reason> {
    let are_spent = rounds.len() >= rounds_max(goal);
    if rounds.last().is_some_and(|last| last.held_back_pages > 0) && !are_spent {
        return None;
    }
    if predicted_ns <= goal.downtime_ns_max {
        return Some(Reason::UnderTarget);
    }
    let unavoidable_ns = rounds.last().map_or(goal.fixed_ns, |last| unavoidable_ns(goal, last));
    if predicted_ns.saturating_sub(unavoidable_ns) <= unavoidable_ns / 10 {
        return Some(Reason::NothingLeftToGain);
    }
    if are_spent {
        return Some(Reason::RoundsSpent);
    }
    // When nothing may follow lazily, a freeze at a bad moment is paid for in full: wait for one
    // that is about as good as any so far.
    let now = goal.lazy != Lazy::Never || is_good_moment(rounds);
    (failures_in_a_row(rounds) >= FAILURES_IN_A_ROW && now).then_some(Reason::RoundsStoppedHelping)
}

fn freeze(goal: &Goal, last: &Round, reason: Reason, predicted_ns: u64) -> Next {
    let in_vain = matches!(reason, Reason::RoundsStoppedHelping | Reason::RoundsSpent);
    let lazy = in_vain && goal.lazy == Lazy::Auto;
    let predicted_ns = if lazy { unavoidable_ns(goal, last) } else { predicted_ns };
    Next::Freeze { reason, predicted_ns, lazy }
}

fn is_worth_withdrawing(last: &Round) -> bool {
    last.dirty_pages >= WITHDRAWN_PAGES_MIN
}

fn failures_in_a_row(rounds: &[Round]) -> usize {
    let failed = |pair: &&[Round]| {
        u128::from(pair[1].dirty_pages) * 100
            >= u128::from(pair[0].dirty_pages) * HELPS_BELOW_PERCENT
    };
    rounds.windows(2).rev().take_while(failed).count()
}

fn is_good_moment(rounds: &[Round]) -> bool {
    let dirty = || rounds.iter().map(|round| u128::from(round.dirty_pages));
    let (best, last) = (dirty().min(), dirty().next_back());
    best.zip(last).is_some_and(|(best, last)| last * 100 <= best * 110)
}

/// A program that rewrites the same pages all the time is best left alone as long as the last
/// round took: each page then travels once for many writes, and tracking slows it down less.
fn pause_ms(rounds: &[Round], last: &Round) -> u64 {
    if failures_in_a_row(rounds) == 0 {
        return 0;
    }
    let longest = u64::try_from(PAUSE_MAX.as_millis()).unwrap_or(u64::MAX);
    (last.duration_ns / 1_000_000).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    const QUIET: Round = Round {
        pages: 0,
        duration_ns: 0,
        dirty_pages: 0,
        held_back_pages: 0,
        compared_pages: 0,
        withdrew: false,
    };

    fn goal(lazy: Lazy) -> Goal {
        Goal { downtime_ns_max: 20 * MS, rounds_max: 10, lazy, fixed_ns: 5 * MS }
    }

    /// A program that writes `rate` different pages a second out of `hot`, over a link that carries
    /// `link` pages a second. Returns how it ended and after how many rounds.
    fn move_it(goal: &Goal, memory: u64, hot: u64, rate: u64, link: u64) -> (Next, usize) {
        let mut rounds: Vec<Round> = Vec::new();
        let mut pages = memory;
        loop {
            match next(goal, &rounds) {
                Next::Round { after_ms, .. } => {
                    let idle = (rate * after_ms / 1000).min(hot);
                    pages = if rounds.is_empty() { memory } else { pages.max(idle) };
                    let duration_ns = pages * 1000 * MS / link + MS;
                    let dirty_pages = hot.min(rate * (duration_ns / MS) / 1000);
                    rounds.push(Round { pages, duration_ns, dirty_pages, ..QUIET });
                    pages = dirty_pages;
                }
                Next::Withdraw { .. } => {
                    let round = Round { dirty_pages: pages, withdrew: true, ..QUIET };
                    rounds.push(round);
                    assert!(matches!(next(goal, &rounds), Next::Freeze { lazy: true, .. }));
                }
                freeze @ Next::Freeze { .. } => return (freeze, rounds.len()),
            }
            assert!(rounds.len() <= goal.rounds_max as usize + 1, "it ends");
        }
    }

    fn reason(next: Next) -> (Reason, bool) {
        match next {
            Next::Freeze { reason, lazy, .. } => (reason, lazy),
            Next::Round { .. } | Next::Withdraw { .. } => panic!("another round"),
        }
    }

    #[test]
    fn an_idle_program_is_frozen_after_one_round() {
        for memory in [1_000, 1_000_000] {
            let (end, rounds) = move_it(&goal(Lazy::Auto), memory, 0, 0, 100_000);
            assert_eq!((reason(end), rounds), ((Reason::UnderTarget, false), 1));
        }
    }

    #[test]
    fn a_program_that_writes_slowly_converges() {
        let (end, rounds) = move_it(&goal(Lazy::Auto), 262_144, 262_144, 20_000, 100_000);
        assert_eq!(reason(end), (Reason::UnderTarget, false));
        assert!((2..=8).contains(&rounds), "{rounds}");
    }

    #[test]
    fn a_writer_faster_than_the_link_still_ends() {
        let (end, rounds) = move_it(&goal(Lazy::Auto), 262_144, 262_144, 1_000_000, 100_000);
        assert_eq!(reason(end), (Reason::RoundsStoppedHelping, true));
        assert!(rounds <= 5, "{rounds}");
        let Next::Freeze { predicted_ns, .. } = end else { panic!() };
        assert_eq!(predicted_ns, 5 * MS, "nothing of it is copied in the freeze");
    }

    #[test]
    fn without_lazy_pages_it_ends_as_well_and_says_how_long_it_will_take() {
        let (end, rounds) = move_it(&goal(Lazy::Never), 262_144, 262_144, 1_000_000, 100_000);
        assert_eq!(reason(end), (Reason::RoundsStoppedHelping, false));
        let Next::Freeze { predicted_ns, .. } = end else { panic!() };
        assert!(rounds <= 10 && predicted_ns > 2_000 * MS, "{predicted_ns}");
    }

    #[test]
    fn rounds_are_never_more_than_allowed() {
        let one = Goal { rounds_max: 1, ..goal(Lazy::Auto) };
        let (end, rounds) = move_it(&one, 262_144, 262_144, 20_000, 100_000);
        assert_eq!((reason(end), rounds), ((Reason::RoundsSpent, true), 2));
    }

    #[test]
    fn what_follows_lazily_is_withdrawn_once_and_only_if_it_is_much() {
        let one = Goal { rounds_max: 1, ..goal(Lazy::Auto) };
        let round =
            |dirty_pages| Round { pages: 50_000, duration_ns: 500 * MS, dirty_pages, ..QUIET };
        let predicted_ns = 5 * MS;
        assert_eq!(next(&one, &[round(40_000)]), Next::Withdraw { predicted_ns });
        let withdrawn = Round { withdrew: true, dirty_pages: 45_000, ..QUIET };
        let end = next(&one, &[round(40_000), withdrawn]);
        assert_eq!(reason(end), (Reason::RoundsSpent, true), "for the reason before it");
        assert_eq!(reason(next(&one, &[round(4_000)])), (Reason::RoundsSpent, true));
        let never = Goal { lazy: Lazy::Never, ..one };
        assert_eq!(reason(next(&never, &[round(40_000)])), (Reason::RoundsSpent, false));
    }

    #[test]
    fn everything_lazy_does_not_copy_a_single_round() {
        assert_eq!(reason(next(&goal(Lazy::Always), &[])), (Reason::EverythingLazy, true));
    }

    #[test]
    fn a_target_below_the_fixed_cost_does_not_make_pages_lazy() {
        let strict = Goal { downtime_ns_max: MS, ..goal(Lazy::Auto) };
        let (end, rounds) = move_it(&strict, 100_000, 3, 1_000, 100_000);
        assert_eq!((reason(end), rounds), ((Reason::NothingLeftToGain, false), 1));
    }

    #[test]
    fn one_burst_of_writing_does_not_end_the_rounds() {
        let round =
            |dirty_pages| Round { pages: 50_000, duration_ns: 500 * MS, dirty_pages, ..QUIET };
        let rounds = [round(50_000), round(60_000), round(20_000)];
        assert!(matches!(next(&goal(Lazy::Auto), &rounds[..2]), Next::Round { .. }));
        assert!(matches!(next(&goal(Lazy::Auto), &rounds), Next::Round { after_ms: 0, .. }));
    }

    #[test]
    fn without_lazy_pages_a_bad_moment_is_waited_out() {
        let round =
            |dirty_pages| Round { pages: 50_000, duration_ns: 500 * MS, dirty_pages, ..QUIET };
        let rounds = [round(20_000), round(50_000), round(90_000)];
        let Next::Round { after_ms, .. } = next(&goal(Lazy::Never), &rounds) else { panic!() };
        assert_eq!(after_ms, 500);
        let calm = [rounds[0], rounds[1], rounds[2], round(75_000), round(65_000), round(21_000)];
        assert!(matches!(next(&goal(Lazy::Never), &calm), Next::Round { after_ms: 0, .. }));
    }

    #[test]
    fn what_was_held_back_gets_its_round_as_long_as_one_is_allowed() {
        let idle = Round { pages: 5, duration_ns: MS, held_back_pages: 1, ..QUIET };
        assert!(matches!(next(&goal(Lazy::Auto), &[idle]), Next::Round { .. }));
        let one = Goal { rounds_max: 1, ..goal(Lazy::Auto) };
        assert!(is_last(&one, &[]) && !is_last(&goal(Lazy::Auto), &[]));
        assert!(matches!(next(&one, &[idle]), Next::Freeze { .. }));
    }

    /// No round would make fewer of them.
    #[test]
    fn pages_that_have_to_be_compared_are_foreseen_and_not_waited_for() {
        let goal = goal(Lazy::Auto);
        let last = Round { pages: 2000, duration_ns: MS, compared_pages: 150_000, ..QUIET };
        let predicted_ns = goal.fixed_ns + 150 * MS;
        let reason = Reason::NothingLeftToGain;
        assert_eq!(next(&goal, &[last]), Next::Freeze { reason, predicted_ns, lazy: false });
    }

    #[test]
    fn figures_beyond_all_measure_do_not_overflow() {
        let huge = Round {
            pages: 1,
            duration_ns: u64::MAX,
            dirty_pages: u64::MAX,
            held_back_pages: u64::MAX,
            compared_pages: u64::MAX,
            withdrew: false,
        };
        let round = Next::Round { after_ms: 2000, predicted_ns: Some(u64::MAX) };
        assert_eq!(next(&goal(Lazy::Never), &[huge, huge]), round);
        assert_eq!(reason(next(&goal(Lazy::Auto), &[QUIET])), (Reason::UnderTarget, false));
    }
}
