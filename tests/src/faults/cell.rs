//! One fault at one moment of one move.

use super::ground::Ground;
use super::{Reach, Step, connected};
use crate::hosts::{RELAY_ADDRESS, Started, TwoHosts};
use crate::relay::Relay;
use crate::workload::Workload;
use anyhow::{Context as _, Result, ensure};
use std::fmt;
use std::time::Duration;

/// How long a line is gone that comes back by itself.
const BLINK: Duration = Duration::from_millis(400);

/// How long a line is gone when the source waits for it without an end: longer than a connection
/// lives without one.
const ABSENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub step: Step,
    pub moment: Moment,
    pub fault: Fault,
    pub subject: Subject,
}

/// What is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A program that writes all the time.
    Writer,
    /// A server whose clients stay connected, with its address.
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of the agent whose step it is.
    Kill,
    KillTheOther,
    KillBoth,
    /// Until the source's command has ended.
    Cut,
    /// For a moment.
    Blink,
    OutOfMemory,
    OutOfDescriptors,
    DiskFull,
}

impl Fault {
    pub const ALL: &[Self] = &[
        Self::Kill,
        Self::KillTheOther,
        Self::KillBoth,
        Self::Cut,
        Self::Blink,
        Self::OutOfMemory,
        Self::OutOfDescriptors,
        Self::DiskFull,
    ];

    pub fn kills(self) -> bool {
        matches!(self, Self::Kill | Self::KillTheOther | Self::KillBoth)
    }

    pub(super) fn errno(self) -> Option<&'static str> {
        match self {
            Self::OutOfMemory => Some("ENOMEM"),
            Self::OutOfDescriptors => Some("EMFILE"),
            Self::DiskFull => Some("ENOSPC"),
            _ => None,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = if self.moment == Moment::Before { "before" } else { "after" };
        write!(f, "{:?} {moment} {}", self.fault, self.step.name)?;
        match self.subject {
            Subject::Writer => Ok(()),
            Subject::Server => write!(f, " of a server"),
        }
    }
}

impl Cell {
    /// Places inside of a step have no moment before; a disk is full where something is written,
    /// and descriptors run out where they are made.
    pub(super) fn can_happen(&self) -> bool {
        let name = self.step.name;
        let inside = ["restore-", "stage-", "silence", "give-"];
        let is_inside = inside.iter().any(|part| name.contains(part));
        let fits = match self.fault {
            Fault::DiskFull => name.contains("record-"),
            Fault::OutOfDescriptors | Fault::OutOfMemory => !name.contains("record-"),
            _ => true,
        };
        // The link of a server's hosts has no relay, and what happens before the freeze is the same.
        let concerns = match self.subject {
            Subject::Writer => true,
            Subject::Server => {
                self.step.is_from_the_freeze_on()
                    && !matches!(self.fault, Fault::Cut | Fault::Blink)
            }
        };
        concerns && fits && !(is_inside && self.moment == Moment::Before)
    }

    pub(super) fn place(&self) -> String {
        let moment = if self.moment == Moment::Before { "before" } else { "after" };
        format!("{}.{moment}", self.step.name)
    }

    pub(super) fn is_at_source(&self) -> bool {
        self.step.name.starts_with("source.")
    }
}

/// Lets it happen, and looks at what becomes of the tree. The error is the violation.
pub fn run(cell: Cell) -> Result<()> {
    let played = match cell.subject {
        Subject::Writer => Scene::set(cell).and_then(Scene::play),
        Subject::Server => connected::play(cell),
    };
    played.with_context(|| cell.to_string())
}

struct Scene {
    ground: Ground,
    relay: Relay,
    workload: Workload,
}

impl Scene {
    fn set(cell: Cell) -> Result<Self> {
        let ground = Ground::prepare(cell, TwoHosts::new()?)?;
        let hosts = &ground.hosts;
        let relay = Relay::start(hosts, &hosts.a, &relay_address(), "192.0.2.2:7747", 1)?;
        let workload = Workload::start(&hosts.a, "writer", &[cell.step.writer_mib()])?;
        workload.proves_itself(&hosts.a)?;
        Ok(Self { ground, relay, workload })
    }

    fn play(mut self) -> Result<()> {
        let command = self.ground.start_move(self.workload.pid, &relay_address(), &[])?;
        self.strike(&command)?;
        self.ground.end_of(&command)?;
        self.relay.heal()?;
        let Cell { step, .. } = self.ground.cell;
        let host = self.ground.settle(self.workload.pid, self.relay.program.pid, |host| {
            self.workload.proves_itself(host)?;
            self.workload.stop(host)
        })?;
        let must_stay = step.reach == Reach::Copying && !self.is_outlived();
        ensure!(!must_stay || host.name() == "hosta", "it was moved");
        let has_left = step.reach == Reach::Lazy;
        ensure!(!has_left || host.name() == "hostb", "it was given away, and runs on the source");
        Ok(())
    }

    /// A line that comes back, or a peer that was not needed any more: the move may succeed.
    fn is_outlived(&self) -> bool {
        matches!(self.ground.cell.fault, Fault::Blink | Fault::Cut)
    }

    fn strike(&self, command: &Started) -> Result<()> {
        let Cell { fault, step, .. } = self.ground.cell;
        let is_cut = matches!(fault, Fault::Cut | Fault::Blink);
        self.ground.strike(command, || if is_cut { self.relay.cut() } else { Ok(()) })?;
        let absence = match fault {
            Fault::Blink => BLINK,
            Fault::Cut if step.reach == Reach::Lazy => ABSENCE,
            _ => return Ok(()),
        };
        std::thread::sleep(absence);
        self.relay.heal()
    }
}

fn relay_address() -> String {
    format!("{RELAY_ADDRESS}:9999")
}
