//! The destination's machine, told anything in any order: it never panics, decides once, and says
//! nothing that its journal does not have.

#![no_main]

use arbitrary::Arbitrary;
use fuzz::messages::{ID, Said, failure, hello};
use libfuzzer_sys::fuzz_target;
use protocol::destination::{Action, Boot, Doing, Entry, Input, State};
use protocol::message::{Complete, Ready};
use protocol::{Message, Outbox, Outcome, Todo};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Told<'a> {
    Said(Said<'a>),
    Judged { refuses: bool },
    /// The line that was asked for last is in the journal.
    Recorded,
    ShellBuilt,
    RoundStored { round: u32 },
    Built,
    Running,
    Discarded,
    Filled,
    MissingListed,
    Failed { doing: u8 },
    TreeLost,
    Disconnected,
    TimedOut,
    Progress,
    Retry,
    Buried,
    /// The agent dies and comes back.
    Restarted { rebooted: bool },
}

const DOINGS: [Doing; 8] = [
    Doing::Judge,
    Doing::Record,
    Doing::BuildShell,
    Doing::Store,
    Doing::Build,
    Doing::Run,
    Doing::Fill,
    Doing::Discard,
];

fn input(told: Told<'_>, asked: &mut Option<Entry>) -> Option<Input> {
    let refusal = || protocol::Refusal::new("o", "r", "a");
    Some(match told {
        Told::Said(said) => Input::Message(said.message()?),
        Told::Judged { refuses } => Input::Judged {
            refusals: if refuses { vec![refusal()] } else { vec![] },
            monotonic_ns: 1,
            boottime_ns: u64::MAX,
        },
        Told::Recorded => Input::Recorded(asked.take()?),
        Told::ShellBuilt => Input::ShellBuilt,
        Told::RoundStored { round } => Input::RoundStored { round, pages: 0 },
        Told::Built => Input::Built(Ready::default()),
        Told::Running => Input::Running { resumed_after_ns: 1 },
        Told::Discarded => Input::Discarded,
        Told::Filled => Input::Filled(Complete::default()),
        Told::MissingListed => Input::MissingListed { runs: bytes::Bytes::new() },
        Told::Failed { doing } => {
            Input::Failed { doing: DOINGS[usize::from(doing) % DOINGS.len()], failure: failure() }
        }
        Told::TreeLost => Input::TreeLost(failure()),
        Told::Disconnected => Input::Disconnected { cause: String::new() },
        Told::TimedOut => Input::TimedOut,
        Told::Progress => Input::Progress,
        Told::Retry => Input::Retry,
        Told::Buried => Input::Buried,
        Told::Restarted { .. } => return None,
    })
}

fn decision(journal: &Option<Entry>) -> Outcome {
    match journal {
        Some(Entry::Decided(outcome)) => *outcome,
        Some(Entry::Complete(_)) => Outcome::Running,
        _ => Outcome::Unknown,
    }
}

fuzz_target!(|story: Vec<Told<'_>>| {
    let mut out = Outbox::new();
    let mut state = State::listen(hello());
    let (mut journal, mut asked): (Option<Entry>, Option<Entry>) = (None, None);
    for told in story {
        if let Told::Restarted { rebooted } = told {
            let Some(last) = journal.clone() else { return };
            let boot = if rebooted { Boot::Another } else { Boot::Same };
            (out, asked) = (Outbox::new(), None);
            state = State::recover(ID, last, boot, &mut out);
        }
        if let Some(input) = input(told, &mut asked) {
            if let Input::Recorded(entry) = &input {
                if let (Some(Entry::Decided(before)), Entry::Decided(now)) = (&journal, entry) {
                    assert_eq!(before, now, "decided twice");
                }
                journal = Some(entry.clone());
            }
            state = match state.handle(input, &mut out) {
                Ok(state) => state,
                Err(fault) => *fault.state,
            };
        }
        let _ = (state.name(), state.patience(), state.id(), state.phase());
        while let Some(todo) = out.pop() {
            match todo {
                Todo::Send(Message::Decided(told)) => {
                    assert_eq!(told.outcome(), decision(&journal), "told before it was written");
                }
                Todo::Do(Action::Record(entry)) => asked = Some(entry),
                Todo::Do(Action::Run) => {
                    assert_eq!(decision(&journal), Outcome::Running, "ran before it was written");
                }
                _ => {}
            }
        }
    }
});
