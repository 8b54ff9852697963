//! One of each thing that a destination can be told.

use crate::{ID, failure};
use bytes::Bytes;
use protocol::destination::{Boot, Doing, Entry, Input, State};
use protocol::message::*;
use protocol::version::Hello;
use protocol::{Outbox, Outcome};

pub(crate) fn first() -> Vec<(&'static str, State)> {
    let recover = |last, boot| State::recover(ID, last, boot, &mut Outbox::new());
    let running = || Entry::Decided(Outcome::Running);
    vec![
        ("start", State::listen(Hello::default())),
        ("restart, accepted", recover(Entry::Accepted, Boot::Same)),
        ("restart, decided", recover(running(), Boot::Same)),
        ("reboot, decided to run", recover(running(), Boot::Another)),
        ("restart, discarded", recover(Entry::Decided(Outcome::Discarded), Boot::Same)),
        ("restart, complete", recover(Entry::Complete(Complete::default()), Boot::Same)),
        ("restart, lost", recover(Entry::Lost(failure()), Boot::Same)),
    ]
}

fn judged(refusals: Vec<Refusal>) -> Input {
    Input::Judged { refusals, monotonic_ns: 0, boottime_ns: 0 }
}

fn failed(doing: Doing) -> Input {
    Input::Failed { doing, failure: failure() }
}

fn told() -> Vec<(&'static str, Message)> {
    let offer = Offer { migration: ID, ..Offer::default() };
    let end = |round| Message::RoundEnd(RoundEnd { round, ..RoundEnd::default() });
    // Two rounds show all there is; a third would only make the search longer.
    let begin = |round| Message::RoundBegin(RoundBegin { round, ..RoundBegin::default() });
    vec![
        ("hello", Message::Hello(Hello::default())),
        ("offered", Message::Offer(offer)),
        ("layout came", Message::Stage(Stage::default())),
        ("round begins", begin(0)),
        ("round begins", begin(1)),
        ("round ends", end(0)),
        ("round ends", end(1)),
        ("image came", Message::Image(Image::default())),
        ("permit came", Message::Handover(Handover { migration: ID })),
        ("asked", Message::Inquire(Inquire { migration: ID })),
        ("everything pushed", Message::PushDone(PushDone {})),
        ("source is done", Message::Done(Done {})),
        ("aborted there", Message::Abort(Abort { failure: failure(), is_lost: false })),
    ]
}

pub(crate) fn inputs() -> Vec<(&'static str, Input)> {
    let mut inputs: Vec<_> =
        told().into_iter().map(|(label, message)| (label, Input::Message(message))).collect();
    let stored = |round| Input::RoundStored { round, pages: 0 };
    inputs.extend([
        ("nothing against it", judged(vec![])),
        ("refused", judged(vec![Refusal::new("o", "r", "a")])),
        ("acceptance recorded", Input::Recorded(Entry::Accepted)),
        ("decision recorded", Input::Recorded(Entry::Decided(Outcome::Running))),
        ("decision recorded", Input::Recorded(Entry::Decided(Outcome::Discarded))),
        ("completion recorded", Input::Recorded(Entry::Complete(Complete::default()))),
        ("shell built", Input::ShellBuilt),
        ("round stored", stored(0)),
        ("round stored", stored(1)),
        ("built", Input::Built(Ready::default())),
        ("runs", Input::Running { resumed_after_ns: 0 }),
        ("discarded", Input::Discarded),
        ("filled", Input::Filled(Complete::default())),
        ("missing listed", Input::MissingListed { runs: Bytes::new() }),
        ("failed", failed(Doing::Judge)),
        ("failed", failed(Doing::Record)),
        ("failed", failed(Doing::Build)),
        ("failed", failed(Doing::Run)),
        ("failed", failed(Doing::Discard)),
        ("failed", failed(Doing::Fill)),
        ("tree lost", Input::TreeLost(failure())),
        ("disconnected", Input::Disconnected { cause: String::new() }),
        ("timed out", Input::TimedOut),
        ("retry", Input::Retry),
        ("buried", Input::Buried),
    ]);
    inputs
}
