//! One of each thing that a source can be told.

use crate::{ID, failure};
use bytes::Bytes;
use protocol::convergence::Goal;
use protocol::message::*;
use protocol::pages::Tally;
use protocol::source::{Doing, Entry, Input, Inspection, Plan, State};
use protocol::version::{Hello, HostFacts};
use protocol::{Outbox, Outcome};

fn hello() -> Hello {
    let host =
        HostFacts { page_size: 4096, features: vec!["userfaultfd".into()], ..HostFacts::default() };
    Hello { protocol_min: 1, protocol_max: 1, host, ..Hello::default() }
}

pub(crate) fn first() -> Vec<(&'static str, State)> {
    let recover = |last| State::recover(ID, last, &mut Outbox::new());
    let goal =
        Goal { downtime_ns_max: 20_000_000, rounds_max: 2, lazy: Lazy::Auto, fixed_ns: 1_000_000 };
    let start = |only_check| {
        let plan = Plan { id: ID, goal, compress: false, only_check };
        State::start(plan, hello(), &mut Outbox::new())
    };
    vec![
        ("start", start(false)),
        ("start, only to check", start(true)),
        ("restart, opened", recover(Entry::Opened)),
        ("restart, surrendered", recover(Entry::Surrendered)),
        ("restart, runs there", recover(Entry::RunsThere)),
        ("restart, relieved", recover(Entry::Relieved)),
    ]
}

fn inspection(refusals: Vec<Refusal>) -> Input {
    Input::Inspected(Inspection {
        inventory: Bytes::new(),
        memory_bytes: 0,
        process_count: 1,
        thread_count: 1,
        kinds: vec![],
        aspects: vec![],
        refusals,
    })
}

fn decided(outcome: Outcome) -> Input {
    Input::Message(Message::Decided(Decided::new(ID, outcome, 0)))
}

fn failed(doing: Doing) -> Input {
    Input::Failed { doing, failure: failure() }
}

fn told() -> Vec<(&'static str, Message)> {
    let refusals = vec![Refusal::new("o", "r", "a")];
    vec![
        ("hello", Message::Hello(hello())),
        (
            "hello, other protocol",
            Message::Hello(Hello { protocol_min: 2, protocol_max: 2, ..hello() }),
        ),
        ("accepted", Message::Accept(Accept::default())),
        ("refused there", Message::Refuse(Refuse { refusals })),
        ("staged", Message::Staged(Staged {})),
        ("round 0 stored", Message::RoundStored(RoundStored { round: 0, pages: 1 })),
        ("round 1 stored", Message::RoundStored(RoundStored { round: 1, pages: 1 })),
        ("round 2 stored", Message::RoundStored(RoundStored { round: 2, pages: 1 })),
        ("ready", Message::Ready(Ready::default())),
        ("missing", Message::Missing(Missing::default())),
        ("complete", Message::Complete(Complete::default())),
        ("aborted there", Message::Abort(Abort { failure: failure(), is_lost: false })),
    ]
}

pub(crate) fn inputs() -> Vec<(&'static str, Input)> {
    let mut inputs: Vec<_> =
        told().into_iter().map(|(label, message)| (label, Input::Message(message))).collect();
    let layout = Bytes::new;
    let described =
        Input::Described { layout: layout(), monotonic_offset_ns: 0, boottime_offset_ns: 0 };
    let measured = |dirty_pages| Input::Measured {
        dirty_pages,
        held_back_pages: 0,
        compared_pages: 0,
        round_ns: 1_000_000_000,
    };
    inputs.extend([
        ("runs there", decided(Outcome::Running)),
        ("discarded there", decided(Outcome::Discarded)),
        ("inspected", inspection(vec![])),
        ("inspected, with refusals", inspection(vec![Refusal::new("o", "r", "a")])),
        ("described", described),
        ("round opened", Input::RoundOpened { layout: layout() }),
        ("round copied", Input::RoundCopied(Tally { pages: 100_000, ..Tally::default() })),
        ("little is dirty", measured(1)),
        ("much is dirty", measured(90_000)),
        ("frozen", Input::Frozen { layout: layout() }),
        ("captured", Input::Captured { image: Bytes::new() }),
        ("surrender recorded", Input::Recorded(Entry::Surrendered)),
        ("relief recorded", Input::Recorded(Entry::Relieved)),
        ("thawed", Input::Thawed),
        ("pushed", Input::Pushed),
        ("reaped", Input::Reaped),
        ("failed", failed(Doing::Copy)),
        ("failed", failed(Doing::Record)),
        ("failed", failed(Doing::Thaw)),
        ("failed", failed(Doing::Reap)),
        ("failed", failed(Doing::Serve)),
        ("tree ended", Input::TreeEnded(failure())),
        ("disconnected", Input::Disconnected { cause: String::new() }),
        ("reconnected", Input::Reconnected),
        ("timed out", Input::TimedOut),
        ("cancelled", Input::Cancelled),
        ("vouched: running", Input::Vouched(Outcome::Running)),
        ("vouched: discarded", Input::Vouched(Outcome::Discarded)),
        ("retry", Input::Retry),
    ]);
    inputs
}
