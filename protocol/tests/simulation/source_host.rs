//! The source: its kernel, its journal, and an agent around the machine.

use crate::broken::{Broken, broken};
use crate::journal::{Disk, Journal, Written};
use crate::memory::{Original, Record, packed, unpacked};
use crate::mistake::Mistake;
use crate::random::Random;
use crate::world::ID;
use bytes::Bytes;
use protocol::convergence::Goal;
use protocol::pages::Tally;
use protocol::source::{Action, Doing, Entry, Input, Inspection, Plan, State};
use protocol::version::{Hello, HostFacts};
use protocol::{Failure, Lazy, Message, Outbox, Outcome, Todo};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    Runs,
    /// Under ptrace: it runs again when the agent dies, unless a stop is queued.
    Frozen,
    Gone,
}

#[derive(Debug)]
pub(crate) struct SourceHost {
    state: Option<State>,
    todo: VecDeque<Action>,
    /// Of actions that were done, on their way to the machine.
    answers: VecDeque<Input>,
    pub(crate) tree: Tree,
    stop_is_queued: bool,
    pub(crate) journal: Journal<Entry>,
    boot: u32,
    pub(crate) memory: Original,
    /// Pages to be pushed; faults are answered only by an agent that serves.
    pub(crate) serving: Option<VecDeque<usize>>,
    pub(crate) line: Option<u32>,
    pub(crate) waited: Duration,
    pub(crate) rebooted: bool,
    /// Someone may act on it, so the tree belongs to the destination from here on.
    pub(crate) surrendered: bool,
    /// The destination, or an operator, has said that it will never run there.
    returned: bool,
    mistake: Option<Mistake>,
}

/// What came of an action, beside what it did.
#[derive(Debug)]
pub(crate) enum Done {
    Answered,
    Died,
    /// Page records to be put on the line.
    Sends(Vec<Record>),
    Dials,
}

pub(crate) fn hello() -> Hello {
    let host =
        HostFacts { page_size: 4096, features: vec!["userfaultfd".into()], ..HostFacts::default() };
    Hello { protocol_min: 1, protocol_max: 1, host, ..Hello::default() }
}

fn plan(lazy: Lazy) -> Plan {
    let goal = Goal { downtime_ns_max: 20_000_000, rounds_max: 3, lazy, fixed_ns: 1_000_000 };
    Plan { id: ID, goal, compress: false, only_check: false }
}

impl SourceHost {
    pub(crate) fn new(lazy: Lazy, mistake: Option<Mistake>) -> (Self, VecDeque<Message>) {
        let mut out = Outbox::new();
        let state = State::start(plan(lazy), hello(), &mut out);
        let mut host = Self {
            state: Some(state),
            todo: VecDeque::new(),
            answers: VecDeque::new(),
            tree: Tree::Runs,
            stop_is_queued: false,
            journal: Journal::new(),
            boot: 0,
            memory: Original::new(),
            serving: None,
            line: None,
            waited: Duration::ZERO,
            rebooted: false,
            surrendered: false,
            returned: false,
            mistake,
        };
        let said = host.take(out);
        (host, said)
    }

    fn take(&mut self, mut out: Outbox<Action>) -> VecDeque<Message> {
        let mut said = VecDeque::new();
        while let Some(todo) = out.pop() {
            match todo {
                Todo::Send(message) => {
                    self.surrendered |= matches!(message, Message::Handover(_));
                    said.push_back(message);
                }
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

    pub(crate) fn feed(&mut self, input: Input) -> Result<VecDeque<Message>, Broken> {
        self.waited = Duration::ZERO;
        self.returned |= gives_back(&input);
        self.thaws_rashly(&input)?;
        let mut out = Outbox::new();
        let state = self.state.take().expect("there is a state between steps");
        match state.handle(input, &mut out) {
            Ok(state) => self.state = Some(state),
            Err(fault) => {
                let why = broken(format!("source: {fault}"));
                self.state = Some(*fault.state);
                return why;
            }
        }
        Ok(self.take(out))
    }

    fn thaws_rashly(&mut self, input: &Input) -> Result<(), Broken> {
        let in_doubt = matches!(self.state_name(), "Awaiting" | "InDoubt");
        let lost = matches!(input, Input::Disconnected { .. } | Input::TimedOut);
        if self.mistake == Some(Mistake::ThawsWhenTheLineIsLost) && in_doubt && lost {
            self.runs_again()?;
        }
        Ok(())
    }

    pub(crate) fn runs(&self) -> bool {
        self.tree == Tree::Runs
    }

    pub(crate) fn is_final(&self) -> bool {
        self.state().is_final()
    }

    /// One after the other: behind a line that is not written yet, everything waits.
    pub(crate) fn has_work(&self) -> bool {
        let is_slow = self.journal.disk == Disk::Slow;
        self.todo.front().is_some_and(|next| !(is_slow && matches!(next, Action::Record(_))))
    }

    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    pub(crate) fn next_answer(&mut self) -> Option<Input> {
        self.answers.pop_front()
    }

    /// What is left of this state's patience.
    pub(crate) fn patience_left(&self) -> Option<Duration> {
        self.state().patience().map(|patience| patience.saturating_sub(self.waited))
    }

    /// In order; but the rest of the pages and the capture go on side by side.
    pub(crate) fn next_action(&mut self, random: &mut Random) -> Option<Action> {
        let side_by_side = matches!(self.todo.front(), Some(Action::CopyRest { .. }))
            && self.todo.get(1) == Some(&Action::Capture);
        let at = if side_by_side { random.index(2) } else { 0 };
        self.todo.remove(at)
    }

    pub(crate) fn perform(
        &mut self,
        action: Action,
        trouble: bool,
        random: &mut Random,
    ) -> Result<Done, Broken> {
        if let Action::Record(entry) = action {
            return self.record(entry, trouble, random);
        }
        if trouble {
            self.answers.push_back(failed(doing(&action)));
            return Ok(Done::Answered);
        }
        let answer = match action {
            Action::Inspect { .. } => Input::Inspected(inspection()),
            Action::Describe { .. } => Input::Described {
                layout: Bytes::new(),
                monotonic_offset_ns: 0,
                boottime_offset_ns: 0,
            },
            Action::OpenRound { .. } => Input::RoundOpened { layout: Bytes::new() },
            Action::CopyRound { round } => {
                self.answers.push_back(copied(2000));
                return Ok(Done::Sends(self.memory.round(round)));
            }
            Action::Withdraw { round } => {
                self.answers.push_back(copied(0));
                return Ok(Done::Sends(self.memory.withdraw(round)));
            }
            Action::Measure => {
                let (dirty_pages, round_ns) = (random.below(9000), 100_000_000);
                Input::Measured {
                    dirty_pages,
                    held_back_pages: dirty_pages % 2,
                    compared_pages: dirty_pages / 4,
                    round_ns,
                }
            }
            Action::Freeze { .. } => self.freeze(),
            Action::CopyRest { round, lazy } => {
                self.answers.push_back(copied(0));
                return Ok(Done::Sends(self.memory.rest(round, lazy, random)));
            }
            Action::Capture => Input::Captured { image: Bytes::from_static(b"image") },
            Action::Thaw => self.thaw()?,
            Action::Serve => self.serve(),
            Action::Push { missing } => self.serve_pages(unpacked(&missing)),
            Action::Reap => self.reap()?,
            Action::Reconnect => return Ok(Done::Dials),
            Action::Record(_) => unreachable!("done above"),
        };
        self.answers.push_back(answer);
        Ok(Done::Answered)
    }

    fn record(&mut self, entry: Entry, trouble: bool, random: &mut Random) -> Result<Done, Broken> {
        let surrenders = entry == Entry::Surrendered;
        self.stop_is_queued |= surrenders && self.mistake != Some(Mistake::QueuesNoStop);
        if surrenders && self.mistake == Some(Mistake::SurrendersWithoutALine) {
            self.answers.push_back(Input::Recorded(entry));
            return Ok(Done::Answered);
        }
        let (came, landed) = self.journal.write((entry, self.boot), trouble, random);
        self.surrendered |= landed && surrenders;
        let trusting = self.mistake == Some(Mistake::TrustsAFullDisk);
        self.answers.push_back(match came {
            Written::Died => return Ok(Done::Died),
            Written::Failed if !trusting => failed(Doing::Record),
            _ => Input::Recorded(entry),
        });
        Ok(Done::Answered)
    }

    fn freeze(&mut self) -> Input {
        self.tree = Tree::Frozen;
        Input::Frozen { layout: Bytes::new() }
    }

    fn thaw(&mut self) -> Result<Input, Broken> {
        if self.tree == Tree::Gone {
            return Ok(Input::TreeEnded(Failure::default()));
        }
        self.runs_again()?;
        Ok(Input::Thawed)
    }

    /// The one rule that counts, looked at from the kernel's side.
    fn runs_again(&mut self) -> Result<(), Broken> {
        if self.surrendered && !self.returned {
            return broken("thawed after the surrender, and nobody has given the tree back");
        }
        self.tree = Tree::Runs;
        self.stop_is_queued = false;
        Ok(())
    }

    /// An agent that was restarted has no list, and waits for the destination's.
    fn serve(&mut self) -> Input {
        match self.memory.stale.clone() {
            Some(pages) => self.serve_pages(pages),
            None if self.tree == Tree::Gone => Input::TreeEnded(Failure::default()),
            None => Input::Progress,
        }
    }

    fn serve_pages(&mut self, pages: VecDeque<usize>) -> Input {
        if self.tree == Tree::Gone {
            return Input::TreeEnded(Failure::default());
        }
        let nothing = pages.is_empty();
        self.serving = Some(pages);
        if nothing { Input::Pushed } else { Input::Progress }
    }

    /// The next page of the push; once all are on their way, that is said.
    pub(crate) fn push(&mut self) -> Option<Record> {
        let pages = self.serving.as_mut()?;
        let page = pages.pop_front()?;
        if pages.is_empty() {
            self.answers.push_back(Input::Pushed);
            if self.mistake == Some(Mistake::ReapsWhenEverythingIsPushed) {
                self.todo.push_back(Action::Reap);
            }
        }
        Some(self.pushed(page))
    }

    pub(crate) fn pushed(&self, page: usize) -> Record {
        Record::Pushed { page, written: self.memory.read(page) }
    }

    pub(crate) fn has_pages_to_push(&self) -> bool {
        self.tree == Tree::Frozen && self.serving.as_ref().is_some_and(|pages| !pages.is_empty())
    }

    pub(crate) fn answers_faults(&self) -> bool {
        self.tree == Tree::Frozen && self.serving.is_some()
    }

    fn reap(&mut self) -> Result<Input, Broken> {
        if self.tree == Tree::Runs {
            return broken("the tree that runs here was ended");
        }
        self.tree = Tree::Gone;
        self.serving = None;
        Ok(Input::Reaped)
    }

    pub(crate) fn loses_its_line(&mut self) {
        (self.line, self.serving) = (None, None);
    }

    /// The agent dies and comes back with its journal.
    pub(crate) fn restart(&mut self) -> Result<(), Broken> {
        if self.tree == Tree::Frozen && !self.stop_is_queued {
            self.runs_again()?;
        }
        self.loses_its_line();
        (self.memory.stale, self.waited) = (None, Duration::ZERO);
        self.todo.clear();
        self.answers.clear();
        let mut out = Outbox::new();
        self.state = Some(match self.journal.last() {
            Some(last) => State::recover(ID, *last, &mut out),
            // Nothing was touched, so there is nothing to come back to.
            None => State::Movable,
        });
        self.take(out);
        Ok(())
    }

    pub(crate) fn reboot(&mut self, random: &mut Random) -> Result<(), Broken> {
        (self.tree, self.rebooted) = (Tree::Gone, true);
        self.boot += 1;
        self.journal.lose_what_was_not_synced(random);
        self.restart()
    }
}

fn gives_back(input: &Input) -> bool {
    match input {
        Input::Message(Message::Decided(decided)) => decided.outcome() == Outcome::Discarded,
        Input::Vouched(outcome) => *outcome == Outcome::Discarded,
        _ => false,
    }
}

fn copied(pages: u64) -> Input {
    Input::RoundCopied(Tally { pages, ..Tally::default() })
}

fn inspection() -> Inspection {
    Inspection {
        inventory: packed(std::iter::empty()),
        memory_bytes: 1,
        process_count: 1,
        thread_count: 1,
        kinds: vec![],
        aspects: vec![],
        refusals: vec![],
    }
}

fn doing(action: &Action) -> Doing {
    match action {
        Action::Inspect { .. } => Doing::Inspect,
        Action::Record(_) => Doing::Record,
        Action::Describe { .. } => Doing::Describe,
        Action::OpenRound { .. } | Action::CopyRound { .. } | Action::Withdraw { .. } => {
            Doing::Copy
        }
        Action::Measure | Action::CopyRest { .. } => Doing::Copy,
        Action::Freeze { .. } => Doing::Freeze,
        Action::Capture => Doing::Capture,
        Action::Thaw => Doing::Thaw,
        Action::Serve | Action::Push { .. } | Action::Reconnect => Doing::Serve,
        Action::Reap => Doing::Reap,
    }
}

fn failed(doing: Doing) -> Input {
    Input::Failed { doing, failure: Failure::default() }
}
