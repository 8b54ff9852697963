//! What a road carries, by one carrier.

use super::super::cost::{self, Cost, mib};
use super::super::spread::Spread;
use super::road::{ROADS, Road};
use super::{WirePlan, in_one_line, stream};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carrier {
    /// One connection.
    Tcp,
    /// QUIC as the agents have it, without a page.
    Link,
    /// The first round of a move.
    PreCopy { memory: Memory, compress: Compress },
}

/// Of the program that is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    Noise,
    /// Like a heap of small objects.
    Objects,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compress {
    None,
    Zstd,
    Auto,
}

impl Memory {
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Objects => "objects",
        }
    }
}

impl Compress {
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Auto => "auto",
        }
    }
}

impl Carrier {
    pub(super) fn name(self) -> String {
        match self {
            Self::Tcp => "plain TCP".into(),
            Self::Link => "the bare link".into(),
            Self::PreCopy { memory, compress } => {
                format!("pre-copy of {}, {}", memory.argument(), compress.argument())
            }
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// Before compression.
    pub memory_bytes: u64,
    pub wire_bytes: u64,
    pub ms: f64,
    pub source: Cost,
    pub destination: Cost,
}

impl Carried {
    /// Of memory, in MiB a second.
    pub(super) fn rate(&self) -> f64 {
        mib(self.memory_bytes) / self.ms * 1e3
    }

    pub(super) fn wire_rate(&self) -> f64 {
        mib(self.wire_bytes) / self.ms * 1e3
    }

    /// Seconds of a processor for each GiB of memory.
    pub(super) fn per_gib(&self, cost: Cost) -> f64 {
        cost.cpu_ms / 1e3 / (mib(self.memory_bytes) / 1024.0)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub road: Road,
    pub carrier: Carrier,
    pub runs: Vec<Carried>,
    pub failures: Vec<String>,
}

impl Row {
    pub(super) fn spread(&self, of: impl Fn(&Carried) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(of))
    }
}

pub(super) fn all() -> impl Iterator<Item = (Road, Carrier)> {
    ROADS.iter().flat_map(|road| carriers().into_iter().map(|carrier| (*road, carrier)))
}

pub(super) fn name(road: Road, carrier: Carrier) -> String {
    format!("{}: {}", road.name(), carrier.name())
}

/// TCP and the bare link first: the others are told by them.
fn carriers() -> Vec<Carrier> {
    let copy = |memory, compress| Carrier::PreCopy { memory, compress };
    vec![
        Carrier::Tcp,
        Carrier::Link,
        copy(Memory::Noise, Compress::None),
        copy(Memory::Objects, Compress::None),
        copy(Memory::Objects, Compress::Zstd),
        copy(Memory::Objects, Compress::Auto),
    ]
}

/// What fails is part of the result.
pub(super) fn measure(road: Road, carrier: Carrier, plan: &WirePlan, tell: &impl Fn(&str)) -> Row {
    let mut row = Row { road, carrier, runs: Vec::new(), failures: Vec::new() };
    for number in 1..=plan.runs {
        let which = format!("{}, run {number}", name(road, carrier));
        match run(road, carrier, road.mib(plan.mib)) {
            Ok(carried) => {
                tell(&format!("{which}: {:.0} MiB/s", carried.rate()));
                row.runs.push(carried);
            }
            Err(error) => {
                let failure = in_one_line(&which, &error);
                tell(&failure);
                row.failures.push(failure);
            }
        }
    }
    row
}

fn run(road: Road, carrier: Carrier, mib: u32) -> Result<Carried> {
    match carrier {
        Carrier::Tcp => stream::tcp(road, mib),
        Carrier::Link => stream::link(road, mib),
        Carrier::PreCopy { memory, compress } => stream::pre_copy(road, mib, memory, compress),
    }
}

/// What the two sides of a run have cost by the files of [`cost::measuring`].
pub(super) fn costs(files: [&Path; 2]) -> Result<[Cost; 2]> {
    let [source, destination] = files.map(|file| cost::read(file).map(|measured| measured.cost));
    Ok([source?, destination?])
}
