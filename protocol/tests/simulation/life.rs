//! A run from its beginning to its end: trouble, then quiet, then what an operator has to do.

use crate::broken::{Broken, broken, holds};
use crate::destination_host::Tree;
use crate::journal::Disk;
use crate::story::{Mishap, Trouble};
use crate::world::World;
use protocol::{Outcome, destination, source};

/// A run without trouble takes about a hundred steps.
const PEACEFUL_STEPS: u64 = 110;
const TROUBLED_STEPS: u64 = 250;
/// For a full disk to be noticed.
const FULL_DISK_STEPS: u64 = 30;
const QUIET_STEPS: u32 = 4000;
/// Long enough for two hosts that can talk to have said everything.
const NAMED_STEPS: u32 = 200;

impl World {
    pub(crate) fn live(&mut self) -> Result<(), Broken> {
        self.trouble()?;
        self.quiet()?;
        if self.needs_an_operator() {
            self.seen.resolved = true;
            self.resolve()?;
            self.quiet()?;
        }
        self.end()
    }

    fn trouble(&mut self) -> Result<(), Broken> {
        match self.story.trouble {
            Trouble::Never => Ok(()),
            Trouble::Once(step, mishap) => {
                for _ in 0..step {
                    self.go_on(false)?;
                }
                self.mishap(mishap)?;
                (0..FULL_DISK_STEPS).try_for_each(|_| self.go_on(false))
            }
            Trouble::Sometime { .. } => {
                // Trouble that always starts at once would hardly ever see a handover.
                let peaceful = self.random.below(PEACEFUL_STEPS);
                (0..peaceful).try_for_each(|_| self.go_on(false))?;
                self.trouble_for(TROUBLED_STEPS)
            }
            Trouble::WhenItRuns { .. } => {
                for _ in 0..PEACEFUL_STEPS {
                    if self.destination.runs() {
                        break;
                    }
                    self.go_on(false)?;
                }
                self.trouble_for(TROUBLED_STEPS)
            }
        }
    }

    fn trouble_for(&mut self, steps: u64) -> Result<(), Broken> {
        // Some runs are full of mishaps, and some have time for what follows from one.
        let seldom = 8 + self.random.below(60);
        for _ in 0..steps {
            if self.random.one_in(seldom) {
                let any = Mishap::ALL[self.random.index(Mishap::ALL.len())];
                if self.story.may_reboot() || !any.is_reboot() {
                    self.mishap(any)?;
                }
            }
            self.go_on(true)?;
        }
        Ok(())
    }

    fn go_on(&mut self, troubled: bool) -> Result<(), Broken> {
        if !self.step(troubled)? {
            self.time_passes()?;
        }
        Ok(())
    }

    fn mishap(&mut self, mishap: Mishap) -> Result<(), Broken> {
        self.say(|| format!("mishap: {mishap:?}"));
        match mishap {
            Mishap::Cut => self.lines.cut_all(&mut self.random),
            Mishap::SourceDies => self.source_dies()?,
            Mishap::DestinationDies => self.destination_dies()?,
            Mishap::BothDie => {
                self.source_dies()?;
                self.destination_dies()?;
            }
            Mishap::SourceTimesOut if self.source.patience_left().is_some() => {
                self.feed_source(source::Input::TimedOut)?;
            }
            Mishap::DestinationTimesOut if self.destination.patience_left().is_some() => {
                let tired = self.destination.tired();
                self.feed_destination(tired)?;
            }
            Mishap::SourceTimesOut | Mishap::DestinationTimesOut => {}
            Mishap::SourceDiskIsSlow => self.source.journal.disk = Disk::Slow,
            Mishap::DestinationDiskIsSlow => self.destination.journal.disk = Disk::Slow,
            Mishap::SourceDiskFills => self.source.journal.disk = Disk::Full,
            Mishap::DestinationDiskFills => self.destination.journal.disk = Disk::Full,
            Mishap::DisksHaveRoom => self.disks_have_room(),
            Mishap::SourceActionFails => self.source_fails()?,
            Mishap::DestinationActionFails => self.destination_fails()?,
            Mishap::Cancelled => self.feed_source(source::Input::Cancelled)?,
            Mishap::SourceReboots => self.source_reboots()?,
            Mishap::DestinationReboots => self.destination_reboots()?,
        }
        Ok(())
    }

    fn disks_have_room(&mut self) {
        self.source.journal.disk = Disk::Good;
        self.destination.journal.disk = Disk::Good;
    }

    fn source_reboots(&mut self) -> Result<(), Broken> {
        self.leave_source();
        self.source.reboot(&mut self.random)
    }

    fn destination_reboots(&mut self) -> Result<(), Broken> {
        self.leave_destination();
        self.destination.reboot(&mut self.random)
    }

    /// Until nothing happens any more, or what remains has a name.
    fn quiet(&mut self) -> Result<(), Broken> {
        self.disks_have_room();
        let mut named = 0;
        for _ in 0..QUIET_STEPS {
            if !self.step(false)? && !self.time_passes()? && !self.retry()? {
                return Ok(());
            }
            let has_a_name = self.needs_an_operator();
            named += u32::from(has_a_name);
            if has_a_name && named > NAMED_STEPS {
                return Ok(());
            }
        }
        broken(format!("it does not come to rest: {}", self.states()))
    }

    /// What is stuck on the source is tried again by an operator.
    fn retry(&mut self) -> Result<bool, Broken> {
        let is_stuck = self.source.state_name() == "Stuck";
        if is_stuck {
            self.feed_source(source::Input::Retry)?;
        }
        Ok(is_stuck)
    }

    /// States in which nothing goes on by itself, and an operator is told why: the destination
    /// forgot or lost what it ran, or the source lost what the destination still needs.
    fn needs_an_operator(&self) -> bool {
        let (here, there) = (self.source.state_name(), self.destination.state_name());
        let doubt = here == "InDoubt" && matches!(there, "Lost" | "Discarded");
        let starves = self.source.is_final() && there == "Starving";
        (doubt && self.destination.rebooted) || (starves && self.source.rebooted)
    }

    /// He looks where the tree runs before he says it.
    fn resolve(&mut self) -> Result<(), Broken> {
        if self.destination.state_name() == "Starving" {
            return self.feed_destination(destination::Input::Buried);
        }
        let runs = self.destination.runs();
        let outcome = if runs { Outcome::Running } else { Outcome::Discarded };
        self.feed_source(source::Input::Vouched(outcome))
    }

    fn end(&self) -> Result<(), Broken> {
        let states = || self.states();
        holds(self.source.is_final(), || format!("the source is not done: {}", states()))?;
        let there = self.destination.state_name();
        let (runs_here, runs_there) = (self.source.runs(), self.destination.runs());
        if self.story.trouble == Trouble::Never {
            holds(runs_there, || format!("it was not moved: {}", states()))?;
        }
        if !runs_here && !runs_there {
            let died = self.source.rebooted || self.destination.rebooted;
            return holds(died, || format!("nobody runs it: {}", states()));
        }
        let agrees = if runs_there {
            matches!(there, "Complete" | "Done")
        } else {
            matches!(there, "Discarded" | "Declined" | "Listening" | "Greeted" | "Lost")
        };
        holds(agrees, || format!("they do not agree: {}", states()))?;
        let nothing_is_left = if runs_there {
            self.is_moved() || self.source.rebooted
        } else {
            self.destination.tree == Tree::Nothing
        };
        holds(nothing_is_left, || format!("a copy is left behind: {}", states()))
    }

    pub(crate) fn is_moved(&self) -> bool {
        self.source.state_name() == "Moved"
    }

    pub(crate) fn nobody_runs(&self) -> bool {
        !self.source.runs() && !self.destination.runs()
    }
}
