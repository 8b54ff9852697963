//! The destination: its kernel, its journal, and an agent around the machine.

use crate::random::Random;
use crate::source_host::hello;
use crate::world::{Done, ID};
use bytes::Bytes;
use protocol::destination::{Action, Boot, Doing, Entry, Input, State};
use protocol::message::{Complete, Ready};
use protocol::{Failure, Message, Outbox, Outcome, Todo};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Nothing,
    /// Dies with the agent.
    Stub,
    /// Outlives the agent and stands still.
    Held,
    Runs,
}

pub(crate) struct DestinationHost {
    state: Option<State>,
    todo: VecDeque<Action>,
    tree: Tree,
    journal: Option<Entry>,
    boot: u32,
    /// The boot id on the journal's last line.
    journal_boot: u32,
    missing: u64,
    fills: bool,
    /// `Filled` was said at least once, in any life of the agent.
    pub(crate) was_complete: bool,
    pub(crate) has_news: bool,
    pub(crate) rebooted: bool,
}

impl DestinationHost {
    pub(crate) fn new() -> Self {
        Self {
            state: Some(State::listen(hello())),
            todo: VecDeque::new(),
            tree: Tree::Nothing,
            journal: None,
            boot: 0,
            journal_boot: 0,
            missing: 0,
            fills: false,
            was_complete: false,
            has_news: false,
            rebooted: false,
        }
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("there is a state between steps")
    }

    pub(crate) fn state_name(&self) -> &'static str {
        self.state().name()
    }

    pub(crate) fn feed(&mut self, input: Input) -> VecDeque<Message> {
        let mut out = Outbox::new();
        let state = self.state.take().expect("there is a state between steps");
        match state.handle(input, &mut out) {
            Ok(state) => self.state = Some(state),
            Err(fault) => {
                self.state = Some(*fault.state.clone());
                panic!("destination: {fault}");
            }
        }
        self.take(out)
    }

    fn take(&mut self, mut out: Outbox<Action>) -> VecDeque<Message> {
        let mut said = VecDeque::new();
        while let Some(todo) = out.pop() {
            match todo {
                Todo::Send(message) => {
                    self.assert_may_say(&message);
                    said.push_back(message);
                }
                Todo::Do(action) => self.todo.push_back(action),
            }
        }
        said
    }

    /// A decision is told only when the journal has it.
    fn assert_may_say(&self, message: &Message) {
        let Message::Decided(decided) = message else { return };
        let kept = match self.journal {
            Some(Entry::Decided(outcome)) => outcome,
            Some(Entry::Complete(_)) => Outcome::Running,
            _ => Outcome::Unknown,
        };
        assert_eq!(decided.outcome(), kept, "writes down before it tells");
    }

    pub(crate) fn runs(&self) -> bool {
        self.tree == Tree::Runs
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        let goes_on = ["Stuck", "Filling", "Starving"].contains(&self.state_name());
        self.todo.is_empty() && !goes_on
    }

    pub(crate) fn is_patient(&self) -> bool {
        self.state().patience().is_some()
    }

    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.todo.pop_front()
    }

    pub(crate) fn perform(&mut self, action: Action, trouble: bool, random: &mut Random) -> Done {
        if let Action::Record(entry) = action {
            return self.record(entry, trouble, random);
        }
        if trouble {
            return fails(&action);
        }
        Done::Input(Box::new(match action {
            Action::Judge(_) => Input::Judged { refusals: vec![], monotonic_ns: 1, boottime_ns: 1 },
            Action::BuildShell(_) => {
                self.tree = Tree::Stub;
                Input::ShellBuilt
            }
            Action::AwaitRound(sent) => Input::RoundStored { round: sent.round, pages: sent.pages },
            Action::Build { .. } => {
                self.missing = random.below(4);
                Input::Built(Ready::default())
            }
            Action::Run => return self.run(),
            Action::ListMissing => Input::MissingListed { runs: Bytes::from_static(b"runs") },
            Action::Discard => {
                assert_ne!(self.tree, Tree::Runs, "what runs is not discarded");
                self.tree = Tree::Nothing;
                Input::Discarded
            }
            Action::Fill => {
                self.fills = true;
                return Done::Nothing;
            }
            Action::OpenRound { .. } | Action::PushEnded => return Done::Nothing,
            Action::Record(_) => unreachable!("done above"),
        }))
    }

    /// A line may be in the journal although writing it failed, or although the agent then died.
    fn record(&mut self, entry: Entry, trouble: bool, random: &mut Random) -> Done {
        if entry == Entry::Decided(Outcome::Running) && self.tree == Tree::Stub {
            self.tree = Tree::Held;
        }
        if !trouble || random.below(2) == 0 {
            self.assert_decides_once(&entry);
            self.journal = Some(entry.clone());
            self.journal_boot = self.boot;
        }
        match (trouble, random.below(2)) {
            (false, _) => Done::Input(Box::new(Input::Recorded(entry))),
            (true, 0) => failed(Doing::Record),
            (true, _) => Done::Died,
        }
    }

    fn assert_decides_once(&self, entry: &Entry) {
        if let (Some(Entry::Decided(before)), Entry::Decided(now)) = (&self.journal, entry) {
            assert_eq!(before, now, "the decision is taken once");
        }
        let complete = matches!(self.journal, Some(Entry::Complete(_)));
        assert!(!complete || !matches!(entry, Entry::Decided(_)), "complete is complete");
    }

    fn run(&mut self) -> Done {
        assert_eq!(self.journal, Some(Entry::Decided(Outcome::Running)), "journals before acting");
        assert_ne!(self.tree, Tree::Nothing, "there is something to run");
        self.tree = Tree::Runs;
        Done::Input(Box::new(Input::Running { resumed_after_ns: 1 }))
    }

    /// Before it fills, pages wait in the stream.
    pub(crate) fn take_a_page(&mut self) {
        self.missing -= u64::from(self.fills && self.missing > 0);
    }

    pub(crate) fn lacks_nothing(&self) -> bool {
        self.missing == 0
    }

    pub(crate) fn filled(&mut self) -> Option<Input> {
        if !(self.fills && self.missing == 0 && self.tree == Tree::Runs) {
            return None;
        }
        self.fills = false;
        self.was_complete = true;
        Some(Input::Filled(Complete::default()))
    }

    /// The agent dies and comes back with its journal; a holder keeps the userfaultfds meanwhile.
    pub(crate) fn restart(&mut self) {
        let boot = if self.boot == self.journal_boot { Boot::Same } else { Boot::Another };
        if self.tree == Tree::Stub {
            self.tree = Tree::Nothing;
        }
        self.fills = false;
        self.todo.clear();
        let mut out = Outbox::new();
        self.state = Some(match self.journal.clone() {
            Some(last) => State::recover(ID, last, boot, &mut out),
            None => State::listen(hello()),
        });
        self.take(out);
    }

    /// Lines that were not synced may be lost with the kernel; those after them are too.
    pub(crate) fn reboot(&mut self, random: &mut Random) {
        self.tree = Tree::Nothing;
        self.rebooted = true;
        if matches!(self.journal, Some(Entry::Decided(_))) && random.below(3) == 0 {
            self.journal = None;
        }
        self.boot += 1;
        self.restart();
    }
}

fn fails(action: &Action) -> Done {
    failed(match action {
        Action::Judge(_) => Doing::Judge,
        Action::Record(_) => Doing::Record,
        Action::BuildShell(_) => Doing::BuildShell,
        Action::OpenRound { .. } | Action::AwaitRound(_) => Doing::Store,
        Action::Build { .. } => Doing::Build,
        Action::Run => Doing::Run,
        Action::Discard => Doing::Discard,
        // These are asked for again by whoever finds them not done; the agent dies of them here.
        Action::Fill | Action::ListMissing | Action::PushEnded => return Done::Died,
    })
}

fn failed(doing: Doing) -> Done {
    Done::Input(Box::new(Input::Failed { doing, failure: Failure::default() }))
}
