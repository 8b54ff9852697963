//! What each action of the machine is, done to the tree.

use crate::connection::PageLines;
use crate::engine_thread::{Tree, Workplace};
use crate::giving::{Freeze, Giving};
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::news::{News, Post, tell};
use crate::outlet::Outlet;
use crate::tracer;
use bytes::Bytes;
use engine::failure_point;
use engine::hooks::{Hooks, Point};
use engine::priority::{Aside, Half, Urgent, Yielding};
use engine::source::{Before, Later, Left};
use engine::{Error, Object, OnObject as _};
use prost::Message as _;
use protocol::message::Accept;
use protocol::source::{Action, Doing, Entry, Input, Inspection};
use protocol::{Failure, Phase, Side};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// For a program to accept those who wait at its sockets, before they stand against the move; and for
/// peers to hear the end of what it has closed, before it moves without that.
const TAKE_IN_MAX: Duration = Duration::from_secs(2);

/// What fails when that is not over by then.
pub(crate) const STOP_AT: &str = "stop the tree in mid-way at";

#[derive(Debug)]
pub(crate) struct Performer {
    /// Before the tree: what serves from it stops before it is let go.
    outlet: Outlet,
    tree: Giving,
    inspection: Option<Inspection>,
    journal: Option<Journal>,
    post: Post,
    interrupt: Arc<Interrupt>,
    /// The layout that the destination has.
    layout: Bytes,
    round_opened: Instant,
    rank: Rank,
    hooks: Hooks,
}

/// Among the other threads of this host: see [`engine::priority`].
#[derive(Debug)]
#[allow(dead_code, reason = "what they hold is let go when the rank changes")]
enum Rank {
    Usual,
    Yielding(Yielding),
    Urgent(Urgent),
    Aside(Aside),
}

impl Performer {
    pub(crate) fn new(workplace: Workplace, interrupt: Arc<Interrupt>) -> Self {
        let Workplace { root, journal, wishes, post, tree, hooks } = workplace;
        let (tree, inspection) = match tree {
            Tree::Untouched(rules, addresses, found) => {
                (Giving::of(root, rules, addresses), Some(found))
            }
            Tree::LeftBehind(left) => (Giving::left_behind(root, left), None),
            Tree::Ended => (Giving::ended(root), None),
        };
        Self {
            tree,
            inspection,
            journal,
            post,
            outlet: Outlet::new(wishes, Arc::clone(&interrupt)),
            interrupt,
            layout: Bytes::new(),
            round_opened: Instant::now(),
            rank: Rank::Usual,
            hooks,
        }
    }

    pub(crate) fn attach(&mut self, lines: PageLines) {
        self.outlet.attach(lines);
    }

    pub(crate) fn answer(&mut self, action: Action) {
        let (doing, is_time) = (doing(&action), is_time_to_sync(&action));
        match failure_point::around(step(&action), || self.perform(action)) {
            Ok(Some(input)) => tell(&self.post, News::Input(input)),
            Ok(None) => {}
            Err(error) => tell(&self.post, News::Input(self.failed(doing, &error))),
        }
        if is_time && let Some(journal) = &self.journal {
            journal.sync();
        }
    }

    fn perform(&mut self, action: Action) -> Result<Option<Input>, Error> {
        Ok(Some(match action {
            Action::Inspect { .. } => return Ok(self.inspect()),
            Action::Record(entry) => self.record(entry)?,
            Action::Describe { destination } => self.describe(&destination)?,
            Action::OpenRound { after, is_last, .. } => self.open_round(after, is_last)?,
            Action::CopyRound { round } => self.copy_round(round)?,
            Action::Withdraw { round } => self.withdraw(round)?,
            Action::Measure => self.measure()?,
            Action::Freeze { .. } => self.freeze()?,
            Action::CopyRest { round, lazy } => self.copy_rest(round, lazy)?,
            Action::Capture => self.image()?,
            Action::Thaw => self.thaw()?,
            Action::Serve => return self.serve().map(|()| None),
            Action::Push { missing } => return self.push(&missing).map(|()| None),
            Action::Reap => self.reap()?,
            Action::Reconnect => return Ok(None),
        }))
    }

    /// What was looked at before the call was made is not a second old.
    fn inspect(&mut self) -> Option<Input> {
        self.inspection.take().map(Input::Inspected)
    }

    fn record(&mut self, entry: Entry) -> Result<Input, Error> {
        if entry == Entry::RunsThere {
            self.tree.send_after();
        }
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
        self.hooks.run(Point::Begin)?;
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

    fn open_round(&mut self, after: Duration, is_last: bool) -> Result<Input, Error> {
        let root = || Object::Process { pid: self.tree.root() };
        self.interrupt.pause(after).on("copy", root)?;
        self.round_opened = Instant::now();
        let before = if is_last { Before::TheFreeze } else { Before::MoreRounds };
        let layout = self.tree.layout(before)?;
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
        if matches!(self.rank, Rank::Usual) {
            self.rank = Rank::Yielding(Yielding::begin(Half::Upper));
        }
        self.tree.round(self.outlet.streams()?)?;
        self.outlet.end_round(round).map(Input::RoundCopied)
    }

    fn withdraw(&mut self, round: u32) -> Result<Input, Error> {
        self.tree.withdraw(self.outlet.streams()?)?;
        self.outlet.end_round(round).map(Input::RoundCopied)
    }

    fn measure(&mut self) -> Result<Input, Error> {
        let Left { dirty_pages, held_back_pages, compared_pages } = self.tree.peek()?;
        let round_ns = u64::try_from(self.round_opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Input::Measured { dirty_pages, held_back_pages, compared_pages, round_ns })
    }

    fn freeze(&mut self) -> Result<Input, Error> {
        let began = self.stop()?;
        self.step("stop", began);
        let began = Instant::now();
        let layout = self.tree.frozen_layout()?;
        let layout = self.if_changed(&layout);
        self.step("layout", began);
        Ok(Input::Frozen { layout })
    }

    /// Who knocks at the last moment is let in first, or the capture would lose him.
    fn stop(&mut self) -> Result<Instant, Error> {
        self.hooks.run(Point::BeforeFreeze)?;
        let limit = Instant::now() + TAKE_IN_MAX;
        loop {
            self.tree.let_newcomers_in(limit)?;
            self.rank = Rank::Urgent(Urgent::begin());
            let is_patient = Instant::now() < limit;
            match self.tree.freeze(is_patient)? {
                Freeze::Stands { since } => {
                    let at = SystemTime::now() - since.elapsed();
                    tell(&self.post, News::Freezes { began: since, at });
                    return Ok(since);
                }
                Freeze::SomebodyWaits(waiting) if !is_patient => {
                    return Err(Error::invalid(STOP_AT, waiting.at, waiting.wait.why));
                }
                Freeze::SomebodyWaits(_) | Freeze::SomebodyListens => {}
            }
            self.rank = Rank::Usual;
        }
    }

    /// The pages that are needed at once are known from the captured registers, so those go first.
    fn copy_rest(&mut self, round: u32, lazy: bool) -> Result<Input, Error> {
        tell_steps(&self.post, self.tree.capture()?);
        let began = Instant::now();
        let later = if lazy { Later::WhatCanBe } else { Later::Nothing };
        self.tree.rest(later, self.outlet.streams()?)?;
        let tally = self.outlet.end_round(round)?;
        self.step("pages", began);
        Ok(Input::RoundCopied(tally))
    }

    fn image(&mut self) -> Result<Input, Error> {
        let captured = self.tree.image()?;
        tell_steps(&self.post, &captured.timings);
        let began = Instant::now();
        let image = captured.image.encode_to_vec().into();
        self.step("image", began);
        // Later a failure would have to be settled with the destination first.
        self.hooks.run(Point::Give)?;
        Ok(Input::Captured { image })
    }

    fn thaw(&mut self) -> Result<Input, Error> {
        self.outlet.stop_serving();
        let thawed = self.tree.thaw();
        self.rank = Rank::Usual;
        thawed?;
        self.tell_afterwards(Point::Kept);
        if self.tree.has_ended() {
            return Ok(Input::TreeEnded(ended(self.tree.root())));
        }
        Ok(Input::Thawed)
    }

    fn serve(&mut self) -> Result<(), Error> {
        self.rank = Rank::Aside(Aside::begin(Half::Upper));
        // After a restart the account is gone; the destination's list comes as a push.
        let Ok(serving) = self.tree.serving() else { return Ok(()) };
        self.outlet.serve(serving, self.post.clone())
    }

    fn push(&mut self, missing: &[u8]) -> Result<(), Error> {
        let serving = self.tree.serving_of(missing)?;
        self.outlet.serve(serving, self.post.clone())
    }

    fn reap(&mut self) -> Result<Input, Error> {
        self.rank = Rank::Usual;
        self.outlet.stop_serving();
        self.tree.end()?;
        self.tell_afterwards(Point::Moved);
        Ok(Input::Reaped)
    }

    /// It is as it is, whatever the hook says.
    fn tell_afterwards(&self, point: Point) {
        if let Err(error) = self.hooks.run(point) {
            tracing::warn!("{error}: {}", error.source);
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
        let failure = Failure::of(Side::Source, phase(doing), error);
        Input::Failed { doing, failure: self.named_by_its_tracer(failure, error) }
    }

    fn named_by_its_tracer(&self, failure: Failure, error: &Error) -> Failure {
        let is_denied = error.source.raw_os_error() == Some(nix::libc::EPERM);
        let tracer = is_denied.then(|| tracer::of_tree(self.tree.root())).flatten();
        tracer.into_iter().fold(failure, Failure::because)
    }
}

fn tell_steps(post: &Post, steps: &[(&'static str, Duration)]) {
    for (step, took) in steps {
        tell(post, News::Step { name: (*step).to_owned(), took: *took });
    }
}

fn journal(journal: &mut Option<Journal>) -> Result<&mut Journal, Error> {
    let why = "it was only to be checked";
    journal.as_mut().ok_or_else(|| Error::invalid("keep a journal on", Object::Host, why))
}

fn ended(root: i32) -> Failure {
    Failure::new(Side::Source, Phase::Unknown, "go on with", format!("process {root}"))
        .because("it has ended")
}

/// Not while the tree stands still, and not before faults are served.
fn is_time_to_sync(action: &Action) -> bool {
    match action {
        Action::Record(entry) => !matches!(entry, Entry::Surrendered | Entry::RunsThere),
        Action::Serve => true,
        _ => false,
    }
}

fn doing(action: &Action) -> Doing {
    match action {
        Action::Inspect { .. } => Doing::Inspect,
        Action::Record(_) => Doing::Record,
        Action::Describe { .. } => Doing::Describe,
        Action::OpenRound { .. } | Action::CopyRound { .. } => Doing::Copy,
        Action::Withdraw { .. } | Action::Measure | Action::CopyRest { .. } => Doing::Copy,
        Action::Freeze { .. } => Doing::Freeze,
        Action::Capture => Doing::Capture,
        Action::Thaw => Doing::Thaw,
        Action::Serve | Action::Push { .. } | Action::Reconnect => Doing::Serve,
        Action::Reap => Doing::Reap,
    }
}

/// Its name among the [`failure_point`]s.
fn step(action: &Action) -> &'static str {
    match action {
        Action::Inspect { .. } => "source.inspect",
        Action::Record(Entry::Opened) => "source.record-opened",
        Action::Record(Entry::Surrendered) => "source.record-surrendered",
        Action::Record(Entry::RunsThere) => "source.record-runs-there",
        Action::Record(Entry::Relieved) => "source.record-relieved",
        Action::Record(Entry::Moved | Entry::Kept | Entry::Gone) => "source.record-end",
        Action::Describe { .. } => "source.describe",
        Action::OpenRound { .. } => "source.open-round",
        Action::CopyRound { .. } => "source.copy-round",
        Action::Withdraw { .. } => "source.withdraw",
        Action::Measure => "source.measure",
        Action::Freeze { .. } => "source.freeze",
        Action::CopyRest { .. } => "source.copy-rest",
        Action::Capture => "source.capture",
        Action::Thaw => "source.thaw",
        Action::Serve => "source.serve",
        Action::Push { .. } => "source.push",
        Action::Reap => "source.reap",
        Action::Reconnect => "source.reconnect",
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
