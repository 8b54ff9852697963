//! The tree in the hands of the engine: what may be done to it depends on how it stands.
//!
//! Lives on the engine's thread. Every step either succeeds or leaves the tree as it was, and
//! dropping it thaws a tree that was not yet surrendered.

use crate::addresses::Addresses;
use crate::cables::Cut;
use crate::journal::{Journal, Member};
use crate::left_behind::{self, Abandoned};
use engine::clocks::Clocks;
use engine::descriptors;
use engine::failure_point;
use engine::freeze::{self, FrozenTree, Held};
use engine::image::{Layout, TreeImage, decode};
use engine::kinds::HeldObject;
use engine::kinds::Rules;
use engine::memory::PageSink;
use engine::source::{Along, Before, Captured, Later, Left, Round, Serving, Source, Waiting};
use engine::tracee::Stopped;
use engine::tree::{Life, Process};
use engine::{Error, Object};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// For the program to accept those who wait at its sockets: a moment, as newcomers are held off.
const ACCEPT_MAX: Duration = Duration::from_millis(200);
const ACCEPT_PAUSE: Duration = Duration::from_millis(1);

/// What came of stopping it.
#[derive(Debug)]
pub(crate) enum Freeze {
    Stands {
        since: Instant,
    },
    /// For what would be lost, so it runs on.
    SomebodyWaits(Waiting),
    /// To what the program has closed: it runs on.
    SomebodyListens,
}

#[derive(Debug)]
pub(crate) struct Giving {
    root: i32,
    rules: Rules,
    /// What was sent of it, and the trackers in its processes.
    source: Option<Source>,
    stand: Stand,
    captured: Option<Captured>,
    /// By job control, as captured.
    stopped: BTreeSet<i32>,
    /// Known from the freeze on.
    members: Vec<Member>,
    /// Connections that were made deaf before the right to run was given away.
    held: Vec<HeldObject>,
    /// That move with it.
    addresses: Addresses,
    /// They may be away from this host.
    gave_addresses: bool,
    /// The cables of its network namespace, from the freeze on.
    cut: Option<Cut>,
}

#[derive(Debug)]
enum Stand {
    Runs,
    Frozen(FrozenTree),
    Held(Held),
    /// Was to be let go, and not all of it was: some of it may still be stopped.
    Loosened,
    /// Stopped by an agent that is no more.
    LeftBehind,
    Ended,
}

impl Giving {
    /// A tree that was not touched yet.
    pub(crate) fn of(root: i32, rules: Rules, addresses: Addresses) -> Self {
        Self {
            root,
            rules,
            source: None,
            stand: Stand::Runs,
            captured: None,
            stopped: BTreeSet::new(),
            members: Vec::new(),
            held: Vec::new(),
            addresses,
            gave_addresses: false,
            cut: None,
        }
    }

    /// A tree as an agent before us left it.
    pub(crate) fn left_behind(root: i32, left: Abandoned) -> Self {
        let Abandoned { members, held, addresses } = left;
        let untouched = Self::of(root, Rules::default(), addresses);
        Self { stand: Stand::LeftBehind, members, held, gave_addresses: true, ..untouched }
    }

    /// A tree whose kernel is no more.
    pub(crate) fn ended(root: i32) -> Self {
        Self { stand: Stand::Ended, ..Self::of(root, Rules::default(), Addresses::default()) }
    }

    pub(crate) fn root(&self) -> i32 {
        self.root
    }

    /// Whether its first process, and so the tree, has ended.
    pub(crate) fn has_ended(&self) -> bool {
        match self.stand {
            Stand::Ended => true,
            Stand::LeftBehind => !self.members.is_empty() && !left_behind::is_there(&self.members),
            _ => Process::read(self.root).map_or(true, |root| root.life == Life::Zombie),
        }
    }

    /// The clocks that the tree sees now.
    pub(crate) fn clocks(&self) -> Result<Clocks, Error> {
        Clocks::of_process(self.root)
    }

    /// From here on it is tracked.
    pub(crate) fn open(&mut self) -> Result<Layout, Error> {
        let Addresses { named: addresses, bridges, .. } = self.addresses.clone();
        let along = Along { addresses, bridges };
        let source = self.source.insert(Source::open(self.root, self.rules, along)?);
        source.layout(Before::MoreRounds)
    }

    pub(crate) fn layout(&mut self, before: Before) -> Result<Layout, Error> {
        self.source()?.layout(before)
    }

    pub(crate) fn round(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        self.source()?.round(sink)
    }

    pub(crate) fn withdraw(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        self.source()?.withdraw(sink)
    }

    pub(crate) fn peek(&mut self) -> Result<Left, Error> {
        self.source()?.peek()
    }

    /// Holds newcomers off, and gives the program a moment to accept those who wait already, and the
    /// kernel one to say the rest of what was closed. Newcomers who are not connected yet have until
    /// `limit`: nothing that the program does would hasten them.
    pub(crate) fn let_newcomers_in(&mut self, limit: Instant) -> Result<(), Error> {
        let source = self.source()?;
        let gates = source.shut_gates()?;
        let moment = Instant::now() + ACCEPT_MAX;
        loop {
            let until = match gates.waiting() {
                Some(waiting) if waiting.wait.is_vital => moment,
                Some(_) => limit.max(moment),
                None if source.unheard()? > 0 => moment,
                None => return Ok(()),
            };
            if Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(ACCEPT_PAUSE);
        }
    }

    /// `is_patient`: not while it should not be stopped, though it can be, nor while a peer still hears
    /// the end of a connection that the program has closed.
    pub(crate) fn freeze(&mut self, is_patient: bool) -> Result<Freeze, Error> {
        let frozen = freeze::freeze(self.root)?;
        let since = frozen.since();
        let (waiting, unheard) = match &mut self.source {
            Some(source) => (source.waiting(&frozen)?, source.unheard()?),
            None => (None, 0),
        };
        if let Some(waiting) = waiting {
            if is_patient || waiting.wait.is_vital {
                frozen.thaw()?;
                return Ok(Freeze::SomebodyWaits(waiting));
            }
            tracing::warn!("{}: {}, and are not waited for", waiting.at, waiting.wait.why);
        }
        if unheard > 0 && is_patient {
            frozen.thaw()?;
            return Ok(Freeze::SomebodyListens);
        }
        if unheard > 0 {
            tracing::warn!(
                connections = unheard,
                "closed by the program, and not heard to their end"
            );
        }
        self.stand = Stand::Frozen(frozen);
        Ok(Freeze::Stands { since })
    }

    pub(crate) fn frozen_layout(&mut self) -> Result<Layout, Error> {
        let Self { root, source, stand, .. } = self;
        let (source, frozen) = standing(*root, source, stand)?;
        source.frozen_layout(frozen)
    }

    pub(crate) fn capture(&mut self) -> Result<&[(&'static str, Duration)], Error> {
        let (source, frozen) = standing(self.root, &mut self.source, &self.stand)?;
        let captured = self.captured.insert(source.capture(frozen)?);
        let stopped = captured.image.processes.iter().filter(|process| process.is_stopped);
        self.stopped = stopped.map(|process| process.pid).collect();
        Ok(&captured.timings)
    }

    /// Sends the last pages, or only those that cannot follow.
    pub(crate) fn rest(&mut self, later: Later, sink: &mut dyn PageSink) -> Result<Round, Error> {
        let (source, frozen) = standing(self.root, &mut self.source, &self.stand)?;
        let captured = self.captured.as_mut().ok_or_else(|| not_so(self.root, "captured"))?;
        source.rest(frozen, captured, later, sink)
    }

    /// All of it, now with what is behind its descriptors.
    pub(crate) fn image(&mut self) -> Result<Captured, Error> {
        let (source, frozen) = standing(self.root, &mut self.source, &self.stand)?;
        let mut captured = self.captured.take().ok_or_else(|| not_so(self.root, "captured"))?;
        captured.timings.clear();
        self.cut = Some(self.addresses.cables.clone().cut()?);
        failure_point::pass("source.cut-cables", "after")?;
        source.objects(frozen, &mut captured)?;
        Ok(captured)
    }

    /// Gives the right to run away: from here on our own end must not let it run.
    pub(crate) fn hold(&mut self, journal: &mut Journal) -> Result<(), Error> {
        let (source, frozen) = standing(self.root, &mut self.source, &self.stand)?;
        self.members = members(frozen, Some(source), &self.stopped);
        journal.will_freeze(self.members.clone())?;
        if let Stand::Frozen(frozen) = std::mem::replace(&mut self.stand, Stand::Loosened) {
            self.stand = Stand::Held(frozen.hold()?);
        }
        self.silence(journal)?;
        failure_point::pass("source.silence", "after")?;
        self.gave_addresses = true;
        // It stands still without us as well, so it may as well stay silent.
        if let Some(cut) = self.cut.take() {
            cut.leave();
        }
        self.addresses.give()?;
        failure_point::pass("source.give-addresses", "after")
    }

    /// Not before it stands still also without us: nothing else would make its connections hear again.
    fn silence(&mut self, journal: &mut Journal) -> Result<(), Error> {
        self.held = self.source()?.hold_originals()?.to_vec();
        if self.held.is_empty() { Ok(()) } else { journal.has_held(&self.held) }
    }

    /// It runs there. What cannot be sent after it is said again by whoever has said it.
    pub(crate) fn send_after(&mut self) {
        let sent = self.source.as_mut().map(Source::send_after);
        if let Some(Err(error)) = sent {
            tracing::warn!("{error}: {}", error.source);
        }
    }

    /// Lets it run as if nobody had asked. Harmless on a tree that was not touched.
    ///
    /// It counts as running only when that was seen: an engine that could not let go of a thread
    /// leaves it stopped, and one whose process was killed meanwhile has nothing to let go of.
    pub(crate) fn thaw(&mut self) -> Result<(), Error> {
        // The trackers go with it, and what keeps its connections silent.
        let mut tracked = self.source.take();
        self.captured = None;
        self.take_connections_back(tracked.as_mut());
        let let_go = match std::mem::replace(&mut self.stand, Stand::Loosened) {
            Stand::Frozen(frozen) => {
                self.members = members(&frozen, tracked.as_ref(), &self.stopped);
                frozen.thaw()
            }
            Stand::Held(held) => held.thaw(),
            Stand::Loosened => left_behind::let_go(&self.members),
            stand @ (Stand::Runs | Stand::LeftBehind | Stand::Ended) => {
                self.stand = stand;
                return left_behind::thaw(&self.members);
            }
        };
        drop(tracked);
        match let_go.or_else(|error| self.is_running().map_err(|_| error)) {
            Ok(()) => self.stand = Stand::Runs,
            error @ Err(_) => return error,
        }
        self.members.clear();
        Ok(())
    }

    /// A connection that cannot be taken back is no reason to keep the tree still.
    fn take_connections_back(&mut self, tracked: Option<&mut Source>) {
        let held = std::mem::take(&mut self.held);
        let taken = match tracked {
            Some(source) => source.take_back(),
            None => self.take_back_what_was_held(&held),
        };
        let returned = match std::mem::take(&mut self.gave_addresses) {
            true => self.addresses.take().and(self.addresses.cables.join()),
            false => Ok(()),
        };
        self.cut = None;
        for error in [taken, returned].into_iter().filter_map(Result::err) {
            tracing::error!("{error}: {}", error.source);
        }
    }

    /// Who was killed may not have come to write down what he had done.
    fn take_back_what_was_held(&self, held: &[HeldObject]) -> Result<(), Error> {
        let pids: Vec<i32> = self.members.iter().map(|member| member.pid).collect();
        descriptors::take_back(held).and(descriptors::take_back_all(&pids))
    }

    fn is_running(&self) -> Result<(), Error> {
        left_behind::let_go(&self.members)
    }

    /// The pages that the last round left.
    pub(crate) fn serving(&mut self) -> Result<Serving, Error> {
        Ok(self.source()?.serving())
    }

    /// Exactly these pages instead.
    pub(crate) fn serving_of(&self, missing: &[u8]) -> Result<Serving, Error> {
        let image: TreeImage = decode("list of missing pages", missing)?;
        let spaces = self.members.iter().filter_map(|member| Some((member.space?, member.pid)));
        Serving::of(spaces, &image.missing)
    }

    pub(crate) fn end(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.stand, Stand::Ended) {
            Stand::Held(held) => {
                let _silent = self.silenced();
                held.end();
            }
            Stand::LeftBehind => {
                self.stand = Stand::LeftBehind;
                let _silent = self.silenced();
                left_behind::end(&self.members)?;
            }
            // Reaping what runs would be the end of the only copy.
            stand @ (Stand::Runs | Stand::Frozen(_) | Stand::Loosened) => {
                self.stand = stand;
                return Err(not_so(self.root, "surrendered"));
            }
            Stand::Ended => {}
        }
        self.source = None;
        self.addresses.cables.remove()
    }

    /// All that can fail of what [`Self::end_recorded`] does, while it can still be let go.
    pub(crate) fn prepare_to_end(&mut self) -> Result<(), Error> {
        self.stand_still()?;
        self.held = self.source()?.hold_originals()?.to_vec();
        Ok(())
    }

    /// It is recorded: it ends here, and its connections end without a word.
    pub(crate) fn end_recorded(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!("{error}: {}", error.source);
        }
    }

    /// It is recorded and [stands still](Self::stand_still): it stays, as after a SIGSTOP.
    pub(crate) fn leave_stopped(&mut self) {
        let mut tracked = self.source.take();
        self.take_connections_back(tracked.as_mut());
        self.stand = Stand::Runs;
    }

    /// Also without us.
    pub(crate) fn stand_still(&mut self) -> Result<(), Error> {
        let (source, frozen) = standing(self.root, &mut self.source, &self.stand)?;
        self.members = members(frozen, Some(source), &self.stopped);
        if let Stand::Frozen(frozen) = std::mem::replace(&mut self.stand, Stand::Loosened) {
            self.stand = Stand::Held(frozen.hold()?);
        }
        Ok(())
    }

    /// Its connections live elsewhere: their originals end without a word while these are kept.
    fn silenced(&self) -> Vec<OwnedFd> {
        descriptors::leave(&self.held).unwrap_or_else(|error| {
            tracing::error!("{error}: {}", error.source);
            Vec::new()
        })
    }

    fn source(&mut self) -> Result<&mut Source, Error> {
        self.source.as_mut().ok_or_else(|| not_so(self.root, "tracked"))
    }
}

fn standing<'a>(
    root: i32,
    source: &'a mut Option<Source>,
    stand: &'a Stand,
) -> Result<(&'a mut Source, &'a FrozenTree), Error> {
    match (source, stand) {
        (Some(source), Stand::Frozen(frozen)) => Ok((source, frozen)),
        _ => Err(not_so(root, "frozen")),
    }
}

fn not_so(pid: i32, what: &str) -> Error {
    Error::invalid("go on with", Object::Process { pid }, format!("it is not {what}"))
}

fn members(frozen: &FrozenTree, source: Option<&Source>, stopped: &BTreeSet<i32>) -> Vec<Member> {
    let spaces = source.into_iter().flat_map(Source::spaces);
    let spaces: BTreeMap<i32, u32> = spaces.map(|(space, pid)| (pid, space)).collect();
    let alive = frozen.processes().iter().filter(|frozen| !frozen.threads.is_empty());
    alive
        .map(|frozen| Member {
            pid: frozen.process.pid,
            start_ticks: frozen.process.start_ticks(),
            space: spaces.get(&frozen.process.pid).copied(),
            is_stopped: stopped.contains(&frozen.process.pid)
                || frozen.threads.iter().any(Stopped::is_group_stopped),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, Giving) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let giving = Giving::of(child.id().cast_signed(), Rules::default(), Addresses::default());
        (child, giving)
    }

    fn finish(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_could_not_be_let_go_is_not_said_to_run() {
        let (child, mut giving) = sleeper();
        let frozen = freeze::freeze(giving.root).unwrap();
        giving.members = members(&frozen, None, &BTreeSet::new());
        // As an engine leaves it that failed to let go of a thread.
        std::mem::forget(frozen);
        giving.stand = Stand::Loosened;
        for _ in 0..2 {
            let error = giving.thaw().unwrap_err();
            assert!(error.source.to_string().contains("still stopped"), "{error:?}");
        }
        assert!(giving.end().is_err(), "it was not surrendered");
        finish(child);
    }

    #[test]
    fn what_was_let_go_after_all_is_said_to_run() {
        let (child, mut giving) = sleeper();
        let frozen = freeze::freeze(giving.root).unwrap();
        giving.members = members(&frozen, None, &BTreeSet::new());
        frozen.thaw().unwrap();
        giving.stand = Stand::Loosened;
        giving.thaw().unwrap();
        assert!(matches!(giving.stand, Stand::Runs));
        finish(child);
    }

    #[test]
    fn a_child_that_was_killed_in_the_freeze_is_no_reason_not_to_thaw() {
        let mut command = Command::new("sh");
        let shell = command.args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let mut giving =
            Giving::of(shell.id().cast_signed(), Rules::default(), Addresses::default());
        std::thread::sleep(Duration::from_millis(200));
        giving.freeze(true).unwrap();
        let Stand::Frozen(frozen) = &giving.stand else { panic!("it is frozen") };
        let child = frozen.processes()[1].process.pid;
        let kill = Command::new("kill").args(["-9", &child.to_string()]).status().unwrap();
        assert!(kill.success());
        std::thread::sleep(Duration::from_millis(50));
        giving.thaw().unwrap();
        assert!(matches!(giving.stand, Stand::Runs));
        finish(shell);
    }
}
