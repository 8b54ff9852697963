//! The source: its kernel, its journal, and an agent around the machine.

use crate::random::Random;
use crate::world::ID;
use bytes::Bytes;
use protocol::convergence::Goal;
use protocol::pages::Tally;
use protocol::source::{Action, Doing, Entry, Input, Inspection, Plan, State};
use protocol::version::{Hello, HostFacts};
use protocol::{Failure, Lazy, Message, Outbox, Todo};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Runs,
    /// Under ptrace: it runs again when the agent dies, unless a stop is queued.
    Frozen,
    Gone,
}

pub(crate) struct SourceHost {
    state: Option<State>,
    todo: VecDeque<Action>,
    tree: Tree,
    stop_is_queued: bool,
    journal: Option<Entry>,
    /// The stale list of the last round, which only the agent that made it has.
    knows_the_list: bool,
    pub(crate) pushes: bool,
    pub(crate) has_news: bool,
    pub(crate) rebooted: bool,
}

pub(crate) fn hello() -> Hello {
    let host =
        HostFacts { page_size: 4096, features: vec!["userfaultfd".into()], ..HostFacts::default() };
    Hello { protocol_min: 1, protocol_max: 1, host, ..Hello::default() }
}

fn plan(random: &mut Random) -> Plan {
    let lazy = [Lazy::Auto, Lazy::Always, Lazy::Never][below(random, 3)];
    let goal = Goal { downtime_ns_max: 20_000_000, rounds_max: 3, lazy, fixed_ns: 1_000_000 };
    Plan { id: ID, goal, compress: false, only_check: false }
}

fn below(random: &mut Random, bound: u64) -> usize {
    usize::try_from(random.below(bound)).unwrap_or(0)
}

impl SourceHost {
    pub(crate) fn new(random: &mut Random) -> (Self, VecDeque<Message>) {
        let mut out = Outbox::new();
        let state = State::start(plan(random), hello(), &mut out);
        let mut host = Self {
            state: Some(state),
            todo: VecDeque::new(),
            tree: Tree::Runs,
            stop_is_queued: false,
            journal: None,
            knows_the_list: false,
            pushes: false,
            has_news: false,
            rebooted: false,
        };
        let said = host.take(out);
        (host, said)
    }

    fn take(&mut self, mut out: Outbox<Action>) -> VecDeque<Message> {
        let mut said = VecDeque::new();
        while let Some(todo) = out.pop() {
            match todo {
                Todo::Send(message) => said.push_back(message),
                Todo::Do(action) => self.todo.push_back(action),
            }
        }
        said
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
                panic!("source: {fault}");
            }
        }
        self.take(out)
    }

    pub(crate) fn runs(&self) -> bool {
        self.tree == Tree::Runs
    }

    pub(crate) fn is_final(&self) -> bool {
        self.state().is_final()
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.todo.is_empty() && !self.has_news
    }

    pub(crate) fn is_patient(&self) -> bool {
        self.state().patience().is_some()
    }

    /// In order; but the rest of the pages and the capture go on side by side.
    pub(crate) fn next_action(&mut self, random: &mut Random) -> Option<Action> {
        let side_by_side = matches!(self.todo.front(), Some(Action::CopyRest { .. }))
            && self.todo.get(1) == Some(&Action::Capture);
        let at = if side_by_side { below(random, 2) } else { 0 };
        self.todo.remove(at)
    }

    /// What the action does, and how it is answered. `None` when the agent dies of it.
    pub(crate) fn perform(
        &mut self,
        action: Action,
        trouble: bool,
        random: &mut Random,
    ) -> Option<Input> {
        if let Action::Record(entry) = action {
            return self.record(entry, trouble, random);
        }
        if trouble {
            return Some(fails(&action));
        }
        Some(match action {
            Action::Inspect { .. } => Input::Inspected(inspection()),
            Action::Describe { .. } => Input::Described {
                layout: Bytes::new(),
                monotonic_offset_ns: 0,
                boottime_offset_ns: 0,
            },
            Action::OpenRound { .. } => Input::RoundOpened { layout: Bytes::new() },
            Action::CopyRound { .. } => {
                Input::RoundCopied(Tally { pages: 2000, ..Tally::default() })
            }
            Action::Measure => {
                Input::Measured { dirty_pages: random.below(9000), round_ns: 100_000_000 }
            }
            Action::Freeze { .. } => self.freeze(),
            Action::CopyRest { .. } => {
                self.knows_the_list = true;
                Input::RoundCopied(Tally::default())
            }
            Action::Capture => Input::Captured { image: Bytes::from_static(b"image") },
            Action::Thaw => self.thaw(),
            Action::Serve => self.serve(),
            Action::Push { .. } => {
                self.pushes = true;
                Input::Progress
            }
            Action::Reap => self.reap(),
            Action::Record(_) | Action::Reconnect => unreachable!("done elsewhere"),
        })
    }

    /// A line may be in the journal although writing it failed, or although the agent then died.
    fn record(&mut self, entry: Entry, trouble: bool, random: &mut Random) -> Option<Input> {
        if entry == Entry::Surrendered {
            self.stop_is_queued = true;
        }
        let lands = !trouble || random.below(2) == 0;
        if lands {
            self.journal = Some(entry);
        }
        match (trouble, random.below(2)) {
            (false, _) => Some(Input::Recorded(entry)),
            (true, 0) => Some(failed(Doing::Record)),
            (true, _) => None,
        }
    }

    fn freeze(&mut self) -> Input {
        self.tree = Tree::Frozen;
        Input::Frozen { layout: Bytes::new() }
    }

    fn thaw(&mut self) -> Input {
        if self.tree == Tree::Gone {
            return Input::TreeEnded(Failure::default());
        }
        self.tree = Tree::Runs;
        self.stop_is_queued = false;
        Input::Thawed
    }

    fn serve(&mut self) -> Input {
        if self.tree == Tree::Gone {
            return Input::TreeEnded(Failure::default());
        }
        self.pushes = self.knows_the_list;
        Input::Progress
    }

    fn reap(&mut self) -> Input {
        assert_ne!(self.tree, Tree::Runs, "only a frozen original is reaped");
        self.tree = Tree::Gone;
        Input::Reaped
    }

    /// The agent dies and comes back with its journal.
    pub(crate) fn restart(&mut self) {
        if self.tree == Tree::Frozen && !self.stop_is_queued {
            self.tree = Tree::Runs;
        }
        self.knows_the_list = false;
        self.todo.clear();
        let mut out = Outbox::new();
        self.state = Some(match self.journal {
            Some(last) => State::recover(ID, last, &mut out),
            // Nothing was touched, so there is nothing to come back to.
            None => State::Movable,
        });
        self.take(out);
    }

    pub(crate) fn reboot(&mut self) {
        self.tree = Tree::Gone;
        self.rebooted = true;
        self.restart();
    }
}

fn inspection() -> Inspection {
    Inspection {
        inventory: Bytes::new(),
        memory_bytes: 1,
        process_count: 1,
        thread_count: 1,
        kinds: vec![],
        aspects: vec![],
        refusals: vec![],
    }
}

fn fails(action: &Action) -> Input {
    failed(match action {
        Action::Inspect { .. } => Doing::Inspect,
        Action::Record(_) => Doing::Record,
        Action::Describe { .. } => Doing::Describe,
        Action::OpenRound { .. } | Action::CopyRound { .. } => Doing::Copy,
        Action::Measure | Action::CopyRest { .. } => Doing::Copy,
        Action::Freeze { .. } => Doing::Freeze,
        Action::Capture => Doing::Capture,
        Action::Thaw => Doing::Thaw,
        Action::Serve | Action::Push { .. } | Action::Reconnect => Doing::Serve,
        Action::Reap => Doing::Reap,
    })
}

fn failed(doing: Doing) -> Input {
    Input::Failed { doing, failure: Failure::default() }
}
