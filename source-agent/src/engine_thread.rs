//! The one thread that may touch the tree: ptrace answers only the thread that attached.
//!
//! It takes the machine's actions in their order and answers each with an input. Everything that
//! may block for long (a full stream, a pause) can be cut short by the interrupt.

use crate::connection::PageLines;
use crate::giving::Giving;
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::news::{News, Post, tell};
use crate::page_streams::{PageStreams, Wishes};
use crate::serving::{Lines, ServingThread};
use bytes::Bytes;
use engine::source::{Later, Serving};
use engine::{Error, Object, OnObject as _};
use prost::Message as _;
use protocol::message::Accept;
use protocol::pages::Tally;
use protocol::source::{Action, Doing, Entry, Input, Inspection};
use protocol::{Failure, Phase, Side};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The machine never has more than a handful of actions under way.
const COMMANDS_MAX: usize = 32;

#[derive(Debug)]
enum Command {
    Do(Action),
    /// Pages go through these from now on.
    Attach(PageLines),
}

/// Everything that the thread works with.
#[derive(Debug)]
pub(crate) struct Workplace {
    pub(crate) root: i32,
    /// None where nothing will be touched.
    pub(crate) journal: Option<Journal>,
    pub(crate) wishes: Wishes,
    pub(crate) post: Post,
    pub(crate) tree: Tree,
}

/// How the tree comes to it.
#[derive(Debug)]
pub(crate) enum Tree {
    Untouched(engine::kinds::Rules, Inspection),
    LeftBehind(Vec<crate::journal::Member>),
    /// With the kernel it ran on.
    Ended,
}

#[derive(Debug)]
pub(crate) struct EngineThread {
    commands: SyncSender<Command>,
    interrupt: Arc<Interrupt>,
    thread: JoinHandle<()>,
}

impl EngineThread {
    pub(crate) fn start(workplace: Workplace) -> io::Result<Self> {
        let (commands, queue) = sync_channel(COMMANDS_MAX);
        let interrupt = Arc::new(Interrupt::default());
        let raised = Arc::clone(&interrupt);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || Performer::new(workplace, raised).run(&queue))?;
        Ok(Self { commands, interrupt, thread })
    }

    /// A thread that has panicked takes nothing any more; its end is noticed by `finish`.
    pub(crate) fn perform(&self, action: Action) {
        let _thread_is_gone = self.commands.send(Command::Do(action));
    }

    pub(crate) fn attach(&self, lines: PageLines) {
        let _thread_is_gone = self.commands.send(Command::Attach(lines));
    }

    /// Ends early what can be ended early.
    pub(crate) fn interrupt(&self) {
        self.interrupt.raise();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until everything that was asked for is done. False when the thread has panicked.
    pub(crate) fn finish(self) -> bool {
        drop(self.commands);
        self.thread.join().is_ok()
    }
}

struct Performer {
    tree: Giving,
    inspection: Option<Inspection>,
    journal: Option<Journal>,
    wishes: Wishes,
    post: Post,
    interrupt: Arc<Interrupt>,
    lines: Option<Lines>,
    serving: Option<ServingThread>,
    /// The layout that the destination has.
    layout: Bytes,
    round_opened: Instant,
    last_round: u32,
}

impl Performer {
    fn new(workplace: Workplace, interrupt: Arc<Interrupt>) -> Self {
        let Workplace { root, journal, wishes, post, tree } = workplace;
        let (tree, inspection) = match tree {
            Tree::Untouched(rules, found) => (Giving::of(root, rules), Some(found)),
            Tree::LeftBehind(members) => (Giving::left_behind(root, members), None),
            Tree::Ended => (Giving::ended(root), None),
        };
        Self {
            tree,
            inspection,
            journal,
            wishes,
            post,
            interrupt,
            lines: None,
            serving: None,
            layout: Bytes::new(),
            round_opened: Instant::now(),
            last_round: 0,
        }
    }

    fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Do(action) => self.answer(action),
                Command::Attach(lines) => self.attach(lines),
            }
        }
        self.stop_serving();
    }

    fn answer(&mut self, action: Action) {
        let doing = doing(&action);
        let recorded = matches!(action, Action::Record(_));
        match self.perform(action) {
            Ok(Some(input)) => tell(&self.post, News::Input(input)),
            Ok(None) => {}
            Err(error) => tell(&self.post, News::Input(self.failed(doing, &error))),
        }
        if recorded && let Some(journal) = &self.journal {
            journal.sync();
        }
    }

    fn perform(&mut self, action: Action) -> Result<Option<Input>, Error> {
        Ok(Some(match action {
            Action::Inspect { .. } => return Ok(self.inspect()),
            Action::Record(entry) => self.record(entry)?,
            Action::Describe { destination } => self.describe(&destination)?,
            Action::OpenRound { after, .. } => self.open_round(after)?,
            Action::CopyRound { round } => self.copy_round(round)?,
            Action::Measure => self.measure()?,
            Action::Freeze { .. } => self.freeze()?,
            Action::CopyRest { round, lazy } => self.copy_rest(round, lazy)?,
            Action::Capture => self.image()?,
            Action::Thaw => self.thaw()?,
            Action::Serve => return self.serve_rest(),
            Action::Push { missing } => return self.push(&missing),
            Action::Reap => self.reap()?,
            Action::Reconnect => return Ok(None),
        }))
    }

    /// What was looked at before the call was made is not a second old.
    fn inspect(&mut self) -> Option<Input> {
        self.inspection.take().map(Input::Inspected)
    }

    fn record(&mut self, entry: Entry) -> Result<Input, Error> {
        if entry == Entry::Surrendered {
            let began = Instant::now();
            let journal = journal(&mut self.journal)?;
            self.tree.hold(journal)?;
            journal.record(entry)?;
            self.step("surrender", began);
        } else {
            journal(&mut self.journal)?.record(entry)?;
        }
        Ok(Input::Recorded(entry))
    }

    /// The tree's clocks are to go on there from what they show here, so they are read first.
    fn describe(&mut self, there: &Accept) -> Result<Input, Error> {
        let clocks = self.tree.clocks()?;
        let layout = self.tree.open()?;
        self.layout = layout.encode_to_vec().into();
        let offset =
            |here: i64, there: u64| here.saturating_sub(i64::try_from(there).unwrap_or(i64::MAX));
        Ok(Input::Described {
            layout: self.layout.clone(),
            monotonic_offset_ns: offset(clocks.monotonic_ns, there.monotonic_ns),
            boottime_offset_ns: offset(clocks.boottime_ns, there.boottime_ns),
        })
    }

    fn open_round(&mut self, after: Duration) -> Result<Input, Error> {
        let root = || Object::Process { pid: self.tree.root() };
        self.interrupt.pause(after).on("copy", root)?;
        self.round_opened = Instant::now();
        let layout = self.tree.layout()?;
        Ok(Input::RoundOpened { layout: self.if_changed(&layout) })
    }

    fn if_changed(&mut self, layout: &engine::image::Layout) -> Bytes {
        let bytes = Bytes::from(layout.encode_to_vec());
        if bytes == self.layout {
            return Bytes::new();
        }
        self.layout = bytes.clone();
        bytes
    }

    fn copy_round(&mut self, round: u32) -> Result<Input, Error> {
        let lines = attached(&mut self.lines)?;
        self.tree.round(&mut lines.streams)?;
        self.end_round(round).map(Input::RoundCopied)
    }

    fn end_round(&mut self, round: u32) -> Result<Tally, Error> {
        self.last_round = round;
        let streams = &mut attached(&mut self.lines)?.streams;
        streams.end_round(round).on("send a round of pages from", || Object::Host)
    }

    fn measure(&mut self) -> Result<Input, Error> {
        let dirty_pages = self.tree.dirty_pages()?;
        let round_ns = u64::try_from(self.round_opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Input::Measured { dirty_pages, round_ns })
    }

    fn freeze(&mut self) -> Result<Input, Error> {
        let began = Instant::now();
        self.tree.freeze()?;
        self.step("stop", began);
        let began = Instant::now();
        let layout = self.tree.frozen_layout()?;
        let layout = self.if_changed(&layout);
        self.step("layout", began);
        Ok(Input::Frozen { layout })
    }

    /// The pages that are needed at once are known from the captured registers, so those go first.
    fn copy_rest(&mut self, round: u32, lazy: bool) -> Result<Input, Error> {
        for (step, took) in self.tree.capture()? {
            tell(&self.post, News::Step { name: (*step).to_owned(), took: *took });
        }
        let began = Instant::now();
        let later = if lazy { Later::WhatCanBe } else { Later::Nothing };
        self.tree.rest(later, &mut attached(&mut self.lines)?.streams)?;
        let tally = self.end_round(round)?;
        self.step("pages", began);
        Ok(Input::RoundCopied(tally))
    }

    fn image(&mut self) -> Result<Input, Error> {
        let image = self.tree.image()?.encode_to_vec().into();
        Ok(Input::Captured { image })
    }

    fn thaw(&mut self) -> Result<Input, Error> {
        self.stop_serving();
        self.tree.thaw()?;
        if self.tree.has_ended() {
            return Ok(Input::TreeEnded(ended(self.tree.root())));
        }
        Ok(Input::Thawed)
    }

    fn serve_rest(&mut self) -> Result<Option<Input>, Error> {
        // After a restart the account is gone; the destination's list comes as a push.
        let Ok(serving) = self.tree.serving() else { return Ok(None) };
        self.serve(serving)
    }

    fn push(&mut self, missing: &[u8]) -> Result<Option<Input>, Error> {
        let serving = self.tree.serving_of(missing)?;
        self.serve(serving)
    }

    fn serve(&mut self, serving: Serving) -> Result<Option<Input>, Error> {
        self.stop_serving();
        let lines = self.lines.take().ok_or_else(no_lines)?;
        let (round, post) = (self.last_round.saturating_add(1), self.post.clone());
        let started = ServingThread::start(serving, lines, round, post);
        self.serving = Some(started.on("start a thread on", || Object::Host)?);
        Ok(None)
    }

    fn stop_serving(&mut self) {
        if let Some(lines) = self.serving.take().and_then(ServingThread::stop) {
            self.lines.get_or_insert(lines);
        }
    }

    fn reap(&mut self) -> Result<Input, Error> {
        self.stop_serving();
        self.tree.end()?;
        Ok(Input::Reaped)
    }

    /// New lines replace those of a link that was lost.
    fn attach(&mut self, lines: PageLines) {
        self.stop_serving();
        let mut lines = lines;
        let senders = std::mem::take(&mut lines.senders);
        match PageStreams::new(senders, self.wishes, Arc::clone(&self.interrupt)) {
            Ok(streams) => self.lines = Some(Lines::new(streams, lines)),
            // The next round or push says that there are no streams.
            Err(error) => tracing::error!(%error, "no memory for a compressor"),
        }
    }

    fn step(&self, name: &str, began: Instant) {
        tell(&self.post, News::Step { name: name.to_owned(), took: began.elapsed() });
    }

    fn failed(&self, doing: Doing, error: &Error) -> Input {
        if self.tree.has_ended() && doing != Doing::Record {
            let failure = ended(self.tree.root()).because(error.to_string());
            return Input::TreeEnded(failure.because(error.source.to_string()));
        }
        Input::Failed { doing, failure: Failure::of(Side::Source, phase(doing), error) }
    }
}

fn journal(journal: &mut Option<Journal>) -> Result<&mut Journal, Error> {
    let why = "it was only to be checked";
    journal.as_mut().ok_or_else(|| Error::invalid("keep a journal on", Object::Host, why))
}

fn attached(lines: &mut Option<Lines>) -> Result<&mut Lines, Error> {
    lines.as_mut().ok_or_else(no_lines)
}

fn no_lines() -> Error {
    Error::invalid("send pages from", Object::Host, "there is no link to send them on")
}

fn ended(root: i32) -> Failure {
    Failure::new(Side::Source, Phase::Unknown, "go on with", format!("process {root}"))
        .because("it has ended")
}

fn doing(action: &Action) -> Doing {
    match action {
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
    }
}

fn phase(doing: Doing) -> Phase {
    match doing {
        Doing::Inspect => Phase::Offer,
        Doing::Record => Phase::Handover,
        Doing::Describe => Phase::Stage,
        Doing::Copy => Phase::Rounds,
        Doing::Freeze => Phase::Freeze,
        Doing::Capture => Phase::Final,
        Doing::Serve => Phase::Lazy,
        Doing::Thaw | Doing::Reap => Phase::Done,
    }
}
