//! The destination: its kernel, its journal, and an agent around the machine.

use crate::broken::{Broken, broken, holds};
use crate::journal::{Disk, Journal, Written};
use crate::memory::{Copy, PAGES, Record, packed};
use crate::mistake::Mistake;
use crate::random::Random;
use crate::source_host::hello;
use crate::world::ID;
use protocol::destination::{Action, Boot, Doing, Entry, Input, State};
use protocol::message::{Complete, Ready};
use protocol::{Failure, Message, Outbox, Outcome, Todo};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    Nothing,
    /// Dies with the agent.
    Stub,
    /// Outlives the agent and stands still.
    Held,
    Runs,
}

/// The line to the source, as this agent knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) number: u32,
    /// Until the source has spoken on it, nothing is said to it here.
    pub(crate) has_spoken: bool,
}

#[derive(Debug)]
pub(crate) struct DestinationHost {
    state: Option<State>,
    todo: VecDeque<Action>,
    answers: VecDeque<Input>,
    pub(crate) tree: Tree,
    pub(crate) journal: Journal<Entry>,
    boot: u32,
    pub(crate) memory: Copy,
    /// The round whose records are let in, and the one that is waited for.
    open_round: Option<u32>,
    landed: Option<u32>,
    awaited: Option<u32>,
    fills: bool,
    /// Everything was pushed, so what is missing is asked for.
    pub(crate) asks_for_the_rest: bool,
    pub(crate) link: Option<Link>,
    pub(crate) waited: Duration,
    /// What is stuck is tried again in its own time, however often someone asks meanwhile.
    stuck_for: Duration,
    /// Nothing was missing at least once, in any life of the agent.
    pub(crate) was_complete: bool,
    pub(crate) rebooted: bool,
    pub(crate) was_buried: bool,
    mistake: Option<Mistake>,
}

/// How often the agent tries again what is stuck.
const STUCK_WAIT: Duration = Duration::from_secs(30);

/// What came of an action, beside what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Answered,
    Died,
}

impl DestinationHost {
    pub(crate) fn new(mistake: Option<Mistake>) -> Self {
        Self {
            state: Some(State::listen(hello())),
            todo: VecDeque::new(),
            answers: VecDeque::new(),
            tree: Tree::Nothing,
            journal: Journal::new(),
            boot: 0,
            memory: Copy::default(),
            open_round: None,
            landed: None,
            awaited: None,
            fills: false,
            asks_for_the_rest: false,
            link: None,
            waited: Duration::ZERO,
            stuck_for: Duration::ZERO,
            was_complete: false,
            rebooted: false,
            was_buried: false,
            mistake,
        }
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("there is a state between steps")
    }

    pub(crate) fn state_name(&self) -> &'static str {
        self.state().name()
    }

    pub(crate) fn feed(&mut self, input: Input) -> Result<VecDeque<Message>, Broken> {
        self.waited = Duration::ZERO;
        self.was_buried |= input == Input::Buried;
        let mut out = Outbox::new();
        let state = self.state.take().expect("there is a state between steps");
        match state.handle(input, &mut out) {
            Ok(state) => self.state = Some(state),
            Err(fault) => {
                let why = broken(format!("destination: {fault}"));
                self.state = Some(*fault.state);
                return why;
            }
        }
        self.take(out)
    }

    fn take(&mut self, mut out: Outbox<Action>) -> Result<VecDeque<Message>, Broken> {
        let mut said = VecDeque::new();
        while let Some(todo) = out.pop() {
            match todo {
                Todo::Send(message) => {
                    self.may_say(&message)?;
                    said.push_back(message);
                }
                Todo::Do(action) => self.todo.push_back(action),
            }
        }
        Ok(said)
    }

    /// A decision is told only when the journal has it.
    fn may_say(&self, message: &Message) -> Result<(), Broken> {
        let Message::Decided(decided) = message else { return Ok(()) };
        let written = match self.journal.last() {
            Some(Entry::Decided(outcome)) => *outcome,
            Some(Entry::Complete(_)) => Outcome::Running,
            _ => Outcome::Unknown,
        };
        let told = decided.outcome();
        holds(told == written, || format!("told {told:?} where the journal has {written:?}"))
    }

    pub(crate) fn runs(&self) -> bool {
        self.tree == Tree::Runs
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

    pub(crate) fn patience_left(&self) -> Option<Duration> {
        if let State::Stuck(_) = self.state() {
            return Some(STUCK_WAIT.saturating_sub(self.stuck_for));
        }
        self.state().patience().map(|patience| patience.saturating_sub(self.waited))
    }

    pub(crate) fn waits(&mut self, passed: Duration) {
        self.waited += passed;
        self.stuck_for += passed;
    }

    /// What the agent makes of having waited for long enough.
    pub(crate) fn tired(&mut self) -> Input {
        self.stuck_for = Duration::ZERO;
        if matches!(self.state(), State::Stuck(_)) { Input::Retry } else { Input::TimedOut }
    }

    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.todo.pop_front()
    }

    pub(crate) fn perform(
        &mut self,
        action: Action,
        trouble: bool,
        random: &mut Random,
    ) -> Result<Done, Broken> {
        match action {
            Action::Record(entry) => return self.record(entry, trouble, random),
            ref action if trouble => return Ok(self.fails(action)),
            Action::Judge(_) => self.answers.push_back(Input::Judged {
                refusals: vec![],
                monotonic_ns: 1,
                boottime_ns: 1,
            }),
            Action::BuildShell(_) => {
                self.tree = Tree::Stub;
                self.answers.push_back(Input::ShellBuilt);
            }
            Action::OpenRound { round, .. } => self.open_round = Some(round),
            Action::AwaitRound(sent) => self.await_round(sent.round),
            Action::Build { .. } => self.answers.push_back(Input::Built(Ready::default())),
            Action::Run => return self.run(),
            Action::ListMissing => {
                let runs = packed(self.memory.missing());
                self.answers.push_back(Input::MissingListed { runs });
            }
            Action::Discard => self.discard()?,
            Action::Fill => {
                self.fills = true;
                self.journal.sync();
            }
            Action::PushEnded => self.asks_for_the_rest = true,
        }
        Ok(Done::Answered)
    }

    fn record(&mut self, entry: Entry, trouble: bool, random: &mut Random) -> Result<Done, Broken> {
        if entry == Entry::Decided(Outcome::Running) {
            self.outlives_the_agent();
        }
        let unwritten = entry == Entry::Decided(Outcome::Discarded)
            && self.mistake == Some(Mistake::DiscardsWithoutALine);
        if unwritten {
            self.answers.push_back(Input::Recorded(entry));
            return Ok(Done::Answered);
        }
        self.decides_once(&entry)?;
        let (came, _) = self.journal.write((entry.clone(), self.boot), trouble, random);
        let trusting = self.mistake == Some(Mistake::TrustsAFullDisk);
        self.answers.push_back(match came {
            Written::Died => return Ok(Done::Died),
            Written::Failed if !trusting => failed(Doing::Record),
            _ => Input::Recorded(entry),
        });
        Ok(Done::Answered)
    }

    fn outlives_the_agent(&mut self) {
        if self.tree == Tree::Stub {
            let rash = self.mistake == Some(Mistake::RunsBeforeItIsWritten);
            self.tree = if rash { Tree::Runs } else { Tree::Held };
        }
    }

    fn decides_once(&self, entry: &Entry) -> Result<(), Broken> {
        match (self.journal.last(), entry) {
            (Some(Entry::Decided(before)), Entry::Decided(now)) if before != now => {
                broken(format!("decided {now:?} after {before:?}"))
            }
            (Some(Entry::Complete(_) | Entry::Lost(_)), Entry::Decided(now)) => {
                broken(format!("decided {now:?} when all was over"))
            }
            _ => Ok(()),
        }
    }

    fn run(&mut self) -> Result<Done, Broken> {
        let written = self.journal.last() == Some(&Entry::Decided(Outcome::Running));
        holds(written, || "it ran before that was written down".into())?;
        holds(self.tree != Tree::Nothing, || "there was nothing to run".into())?;
        self.tree = Tree::Runs;
        self.answers.push_back(Input::Running { resumed_after_ns: 1 });
        Ok(Done::Answered)
    }

    /// What runs is ended only for an operator who has given it up.
    fn discard(&mut self) -> Result<(), Broken> {
        holds(!self.runs() || self.was_buried, || "what runs was discarded".into())?;
        self.tree = Tree::Nothing;
        self.answers.push_back(Input::Discarded);
        Ok(())
    }

    fn fails(&mut self, action: &Action) -> Done {
        let doing = match action {
            Action::Judge(_) => Doing::Judge,
            Action::Record(_) => Doing::Record,
            Action::BuildShell(_) => Doing::BuildShell,
            Action::OpenRound { .. } | Action::AwaitRound(_) => Doing::Store,
            Action::Build { .. } => Doing::Build,
            Action::Run => Doing::Run,
            Action::Discard => Doing::Discard,
            // These are asked for again by whoever finds them not done; the agent dies of them.
            Action::Fill | Action::ListMissing | Action::PushEnded => return Done::Died,
        };
        self.answers.push_back(failed(doing));
        Done::Answered
    }

    fn await_round(&mut self, round: u32) {
        self.awaited = Some(round);
        self.answer_if_landed();
    }

    fn answer_if_landed(&mut self) {
        if let Some(round) = self.awaited.take_if(|round| self.landed == Some(*round)) {
            self.answers.push_back(Input::RoundStored { round, pages: PAGES as u64 });
        }
    }

    /// Whether the gate in front of the memory lets a record in, or away.
    pub(crate) fn takes(&self, record: &Record) -> bool {
        match record {
            Record::Pushed { .. } => self.fills || self.tree == Tree::Nothing,
            Record::Page { round, .. } | Record::Stale { round, .. } | Record::End { round } => {
                self.tree != Tree::Stub || self.open_round >= Some(*round)
            }
        }
    }

    pub(crate) fn take_record(&mut self, record: Record) {
        let is_stub = self.tree == Tree::Stub;
        let keeps_stale = self.mistake == Some(Mistake::KeepsStalePages);
        match record {
            Record::Page { page, written, .. } if is_stub => self.memory.store(page, written),
            Record::Stale { page, .. } if is_stub && !keeps_stale => self.memory.drop_page(page),
            Record::End { round } if is_stub => {
                self.landed = Some(round);
                self.answer_if_landed();
            }
            Record::Pushed { page, written } if self.tree != Tree::Nothing => {
                if self.mistake == Some(Mistake::OverwritesWithLatePages) {
                    self.memory.store(page, written);
                } else {
                    self.memory.fill(page, written);
                }
            }
            // Of a round before the handover, on a line that is no more.
            _ => {}
        }
    }

    /// Said once a life of the agent.
    pub(crate) fn is_filled(&self) -> bool {
        self.fills && self.tree == Tree::Runs && self.memory.missing().next().is_none()
    }

    pub(crate) fn filled(&mut self) -> Input {
        self.fills = false;
        self.was_complete = true;
        Input::Filled(Complete::default())
    }

    /// The agent dies and comes back with its journal; a holder keeps the userfaultfds meanwhile.
    pub(crate) fn restart(&mut self) -> Result<(), Broken> {
        match (self.tree, self.mistake) {
            (Tree::Stub, Some(Mistake::LeavesStubsBehind)) => self.tree = Tree::Runs,
            (Tree::Stub, _) => self.tree = Tree::Nothing,
            (_, Some(Mistake::LetsGoOfTheUserfaultfd)) => {
                self.memory.reads_zeros_where_it_would_wait();
            }
            _ => {}
        }
        self.link = None;
        self.begin_again()
    }

    /// Another machine for the same migration, from what the journal says.
    pub(crate) fn begin_again(&mut self) -> Result<(), Broken> {
        (self.fills, self.asks_for_the_rest, self.waited) = (false, false, Duration::ZERO);
        (self.open_round, self.landed, self.awaited) = (None, None, None);
        self.todo.clear();
        self.answers.clear();
        let boot = if Some(self.boot) == self.journal.boot() { Boot::Same } else { Boot::Another };
        let mut out = Outbox::new();
        self.state = Some(match self.journal.last().cloned() {
            Some(last) => State::recover(ID, last, boot, &mut out),
            None => State::listen(hello()),
        });
        self.take(out).map(|_| ())
    }

    pub(crate) fn reboot(&mut self, random: &mut Random) -> Result<(), Broken> {
        (self.tree, self.rebooted) = (Tree::Nothing, true);
        self.journal.lose_what_was_not_synced(random);
        self.boot += 1;
        self.restart()
    }
}

fn failed(doing: Doing) -> Input {
    Input::Failed { doing, failure: Failure::default() }
}
