//! The tree in the hands of the engine: what may be done to it depends on how it stands.
//!
//! Lives on the engine's thread. Every step either succeeds or leaves the tree as it was, and
//! dropping it thaws a tree that was not yet surrendered.

use crate::journal::{Journal, Member};
use crate::left_behind;
use engine::clocks::Clocks;
use engine::freeze::{self, FrozenTree, Held};
use engine::image::{Layout, TreeImage, decode};
use engine::kinds::Rules;
use engine::memory::PageSink;
use engine::source::{Captured, Later, Round, Serving, Source};
use engine::tree::{Life, Process};
use engine::{Error, Object};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
}

#[derive(Debug)]
enum Stand {
    Runs,
    Frozen(FrozenTree),
    Held(Held),
    /// Stopped by an agent that is no more.
    LeftBehind,
    Ended,
}

impl Giving {
    /// A tree that was not touched yet.
    pub(crate) fn of(root: i32, rules: Rules) -> Self {
        Self {
            root,
            rules,
            source: None,
            stand: Stand::Runs,
            captured: None,
            stopped: BTreeSet::new(),
            members: Vec::new(),
        }
    }

    /// A tree as an agent before us left it.
    pub(crate) fn left_behind(root: i32, members: Vec<Member>) -> Self {
        Self { stand: Stand::LeftBehind, members, ..Self::of(root, Rules::default()) }
    }

    /// A tree whose kernel is no more.
    pub(crate) fn ended(root: i32) -> Self {
        Self { stand: Stand::Ended, ..Self::of(root, Rules::default()) }
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
        let source = self.source.insert(Source::open(self.root, self.rules)?);
        source.layout()
    }

    pub(crate) fn layout(&mut self) -> Result<Layout, Error> {
        self.source()?.layout()
    }

    pub(crate) fn round(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        self.source()?.round(sink)
    }

    pub(crate) fn dirty_pages(&mut self) -> Result<u64, Error> {
        self.source()?.peek()
    }

    pub(crate) fn freeze(&mut self) -> Result<(), Error> {
        self.stand = Stand::Frozen(freeze::freeze(self.root)?);
        Ok(())
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

    pub(crate) fn image(&mut self) -> Result<TreeImage, Error> {
        let captured = self.captured.take().ok_or_else(|| not_so(self.root, "captured"))?;
        Ok(captured.image)
    }

    /// Gives the right to run away: from here on our own end must not let it run.
    pub(crate) fn hold(&mut self, journal: &mut Journal) -> Result<(), Error> {
        let (source, frozen) = standing(self.root, &mut self.source, &self.stand)?;
        self.members = members(frozen, source, &self.stopped);
        journal.will_freeze(self.members.clone())?;
        if let Stand::Frozen(frozen) = std::mem::replace(&mut self.stand, Stand::Runs) {
            self.stand = Stand::Held(frozen.hold()?);
        }
        Ok(())
    }

    /// Lets it run as if nobody had asked. Harmless on a tree that was not touched.
    pub(crate) fn thaw(&mut self) -> Result<(), Error> {
        let thawed = match std::mem::replace(&mut self.stand, Stand::Runs) {
            Stand::Ended => {
                self.stand = Stand::Ended;
                Ok(())
            }
            Stand::Frozen(frozen) => frozen.thaw(),
            Stand::Held(held) => held.thaw(),
            Stand::LeftBehind => {
                self.stand = Stand::LeftBehind;
                left_behind::thaw(&self.members)
            }
            Stand::Runs => Ok(()),
        };
        // The trackers go with it.
        (self.source, self.captured) = (None, None);
        thawed
    }

    /// The pages that the last round left.
    pub(crate) fn serving(&mut self) -> Result<Serving, Error> {
        Ok(self.source()?.serving())
    }

    /// Exactly these pages instead.
    pub(crate) fn serving_of(&self, missing: &[u8]) -> Result<Serving, Error> {
        let image: TreeImage = decode("list of missing pages", missing)?;
        let spaces = self.members.iter().filter_map(|member| Some((member.space?, member.pid)));
        Ok(Serving::of(spaces, &image.missing))
    }

    pub(crate) fn end(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.stand, Stand::Ended) {
            Stand::Held(held) => held.end(),
            Stand::LeftBehind => {
                self.stand = Stand::LeftBehind;
                left_behind::end(&self.members)?;
            }
            // Reaping what runs would be the end of the only copy.
            stand @ (Stand::Runs | Stand::Frozen(_)) => {
                self.stand = stand;
                return Err(not_so(self.root, "surrendered"));
            }
            Stand::Ended => {}
        }
        self.source = None;
        Ok(())
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

fn members(frozen: &FrozenTree, source: &Source, stopped: &BTreeSet<i32>) -> Vec<Member> {
    let spaces: BTreeMap<i32, u32> = source.spaces().map(|(space, pid)| (pid, space)).collect();
    let alive = frozen.processes().iter().filter(|frozen| !frozen.threads.is_empty());
    alive
        .map(|frozen| Member {
            pid: frozen.process.pid,
            start_ticks: frozen.process.start_ticks(),
            space: spaces.get(&frozen.process.pid).copied(),
            is_stopped: stopped.contains(&frozen.process.pid),
        })
        .collect()
}
