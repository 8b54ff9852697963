//! One fault at one moment of one move.

use super::ground::Ground;
use super::{Step, connected};
use crate::hosts::TwoHosts;
use crate::workload::Workload;
use anyhow::{Context as _, Result};
use std::fmt;

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
    /// The same in a network namespace of its own, which moves as a whole.
    Namespace,
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
            Subject::Namespace => write!(f, " of a server in its namespace"),
        }
    }
}

impl Cell {
    /// Places inside of a step have no moment before; a disk is full where something is written,
    /// and descriptors run out where they are made.
    pub(super) fn can_happen(&self) -> bool {
        let name = self.step.name;
        let inside = ["restore-", "stage-", "cut-", "silence", "give-"];
        let is_inside = inside.iter().any(|part| name.contains(part));
        let fits = match self.fault {
            Fault::DiskFull => name.contains("record-"),
            Fault::OutOfDescriptors | Fault::OutOfMemory => !name.contains("record-"),
            _ => true,
        };
        // What happens before the freeze is the same.
        let concerns = self.subject == Subject::Writer || self.step.is_from_the_freeze_on();
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
        Subject::Server | Subject::Namespace => connected::play(cell),
    };
    played.with_context(|| cell.to_string())
}

struct Scene {
    ground: Ground,
    workload: Workload,
}

impl Scene {
    fn set(cell: Cell) -> Result<Self> {
        let ground = Ground::prepare(cell, TwoHosts::new()?)?;
        let hosts = &ground.hosts;
        let workload = Workload::start(&hosts.a, "writer", &[cell.step.writer_mib()])?;
        workload.proves_itself(&hosts.a)?;
        Ok(Self { ground, workload })
    }

    fn play(mut self) -> Result<()> {
        let command = self.ground.start_move(self.workload.pid, &[])?;
        self.ground.strike(&command)?;
        self.ground.end_of(&command)?;
        self.ground.settle(self.workload.pid, |host| {
            self.workload.proves_itself(host)?;
            self.workload.stop(host)
        })
    }
}
