//! The source's machine, told anything in any order: it never panics, and does not let the tree run
//! again after a surrender unless it was given back.

#![no_main]

use arbitrary::Arbitrary;
use fuzz::messages::{ID, Said, failure, hello};
use libfuzzer_sys::fuzz_target;
use protocol::convergence::Goal;
use protocol::pages::Tally;
use protocol::source::{Action, Doing, Entry, Input, Inspection, Plan, State};
use protocol::{Lazy, Message, Outbox, Outcome, Todo};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Told<'a> {
    Said(Said<'a>),
    Inspected { refuses: bool },
    Recorded { entry: u8 },
    Described,
    RoundOpened,
    RoundCopied { pages: u64 },
    Measured { dirty_pages: u64, held_back_pages: u64, compared_pages: u64, round_ns: u64 },
    Frozen,
    Captured,
    Thawed,
    Pushed,
    Reaped,
    Failed { doing: u8 },
    TreeEnded,
    Disconnected,
    Reconnected,
    TimedOut,
    Progress,
    Cancelled,
    Vouched { runs: bool },
    Retry,
    /// The agent dies and comes back.
    Restarted,
}

const ENTRIES: [Entry; 7] = [
    Entry::Opened,
    Entry::Surrendered,
    Entry::RunsThere,
    Entry::Relieved,
    Entry::Moved,
    Entry::Kept,
    Entry::Gone,
];

const DOINGS: [Doing; 9] = [
    Doing::Inspect,
    Doing::Record,
    Doing::Describe,
    Doing::Copy,
    Doing::Freeze,
    Doing::Capture,
    Doing::Thaw,
    Doing::Serve,
    Doing::Reap,
];

fn input(told: Told<'_>) -> Option<Input> {
    let empty = bytes::Bytes::new;
    Some(match told {
        Told::Said(said) => Input::Message(said.message()?),
        Told::Inspected { refuses } => {
            let refusal = protocol::Refusal::new("o", "r", "a");
            let refusals = if refuses { vec![refusal] } else { vec![] };
            Input::Inspected(Inspection {
                inventory: empty(),
                memory_bytes: 1,
                process_count: 1,
                thread_count: 1,
                kinds: vec![],
                aspects: vec![],
                refusals,
            })
        }
        Told::Recorded { entry } => Input::Recorded(ENTRIES[usize::from(entry) % ENTRIES.len()]),
        Told::Described => Input::Described {
            layout: empty(),
            monotonic_offset_ns: i64::MIN,
            boottime_offset_ns: i64::MAX,
        },
        Told::RoundOpened => Input::RoundOpened { layout: empty() },
        Told::RoundCopied { pages } => Input::RoundCopied(Tally { pages, ..Tally::default() }),
        Told::Measured { dirty_pages, held_back_pages, compared_pages, round_ns } => {
            Input::Measured { dirty_pages, held_back_pages, compared_pages, round_ns }
        }
        Told::Frozen => Input::Frozen { layout: empty() },
        Told::Captured => Input::Captured { image: empty() },
        Told::Thawed => Input::Thawed,
        Told::Pushed => Input::Pushed,
        Told::Reaped => Input::Reaped,
        Told::Failed { doing } => {
            Input::Failed { doing: DOINGS[usize::from(doing) % DOINGS.len()], failure: failure() }
        }
        Told::TreeEnded => Input::TreeEnded(failure()),
        Told::Disconnected => Input::Disconnected { cause: String::new() },
        Told::Reconnected => Input::Reconnected,
        Told::TimedOut => Input::TimedOut,
        Told::Progress => Input::Progress,
        Told::Cancelled => Input::Cancelled,
        Told::Vouched { runs } => {
            Input::Vouched(if runs { Outcome::Running } else { Outcome::Discarded })
        }
        Told::Retry => Input::Retry,
        Told::Restarted => return None,
    })
}

fn gives_back(input: &Input) -> bool {
    match input {
        Input::Vouched(outcome) => *outcome == Outcome::Discarded,
        Input::Message(Message::Decided(decided)) => decided.outcome() == Outcome::Discarded,
        _ => false,
    }
}

fuzz_target!(|story: (u8, Vec<Told<'_>>)| {
    let (lazy, story) = story;
    let lazy = [Lazy::Auto, Lazy::Always, Lazy::Never][usize::from(lazy) % 3];
    let goal = Goal { downtime_ns_max: 20_000_000, rounds_max: 3, lazy, fixed_ns: 1_000_000 };
    let plan = Plan { id: ID, goal, compress: false, only_check: false };
    let mut out = Outbox::new();
    let mut state = State::start(plan, hello(), &mut out);
    let (mut surrendered, mut given_back, mut journal) = (false, false, None);
    let mut wanted = Vec::new();
    for told in story {
        if matches!(told, Told::Restarted) {
            let Some(last) = journal else { return };
            out = Outbox::new();
            state = State::recover(ID, last, &mut out);
        }
        if let Some(input) = input(told) {
            given_back |= gives_back(&input);
            // A line that nobody wanted is not in the journal, whatever the machine is told.
            if let Input::Recorded(entry) = &input
                && let Some(at) = wanted.iter().position(|one| one == entry)
            {
                wanted.remove(at);
                journal = Some(*entry);
                surrendered |= *entry == Entry::Surrendered;
            }
            state = match state.handle(input, &mut out) {
                Ok(state) => state,
                Err(fault) => *fault.state,
            };
        }
        let _ = (state.name(), state.patience(), state.is_final(), state.phase());
        while let Some(todo) = out.pop() {
            match todo {
                Todo::Send(Message::Handover(_)) => surrendered = true,
                Todo::Do(Action::Record(entry)) => wanted.push(entry),
                Todo::Do(Action::Thaw) => {
                    let recovered = journal == Some(Entry::Opened);
                    assert!(!surrendered || given_back || recovered, "thawed after the surrender");
                }
                _ => {}
            }
        }
    }
});
