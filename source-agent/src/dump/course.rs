//! A dump from its first round to what becomes of the tree.

use super::files::Files;
use crate::addresses::Addresses;
use crate::cli::{Afterwards, Dump};
use crate::ending::{Ending, chain};
use crate::events::{DumpSummary, Event};
use crate::giving::{Freeze, Giving};
use crate::hello;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::performer::STOP_AT;
use engine::failure_point;
use engine::image::manifest::Known;
use engine::image::{Buffer, Manifest, Tree, Writer, decode};
use engine::memory::{PAGE_BYTES, PageSink};
use engine::priority::{Half, Urgent, Yielding};
use engine::source::{Before, Later, Left};
use engine::{Error, Object};
use prost::Message as _;
use protocol::Lazy;
use protocol::convergence::{self, Goal, Next};
use protocol::source::Inspection;
use protocol::version::Offered;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a program is waited for that does not take in those who wait at its sockets.
const TAKE_IN_MAX: Duration = Duration::from_secs(2);
/// A parent that does not wait for its child is no reason to fail.
const REAP_WAIT: Duration = Duration::from_secs(1);
/// Stopping and capturing one process, and a thread more of it.
const FIXED_NS: u64 = 2_000_000;
const THREAD_NS: u64 = 20_000;

pub(super) struct Course<'a> {
    tree: Giving,
    goal: Goal,
    buffer_bytes: u64,
    manifest: Manifest,
    files: Option<Files>,
    interrupt: &'a Interrupt,
    rounds: Vec<convergence::Round>,
}

/// An image that is whole.
#[derive(Debug)]
pub(crate) struct Dumped {
    pub(super) notes: Vec<String>,
    rounds: usize,
    /// How long the tree did.
    pub(crate) stood_still: Duration,
    pages: u64,
    /// How many, and their bytes.
    files: Option<(usize, u64)>,
    afterwards: Afterwards,
}

impl<'a> Course<'a> {
    pub(super) fn begin(
        dump: &Dump,
        inspection: &Inspection,
        files: Option<Files>,
        interrupt: &'a Interrupt,
    ) -> Result<Self, Ending> {
        let host = hello::of_this_host()?;
        let threads = u64::from(inspection.thread_count);
        let goal = Goal {
            downtime_ns_max: dump.max_downtime.saturating_mul(1_000_000),
            rounds_max: dump.pre_dump,
            lazy: Lazy::Never,
            fixed_ns: FIXED_NS + THREAD_NS * threads,
        };
        let manifest = Manifest {
            host: host.encode_to_vec(),
            inventory: Some(decode("inventory", &inspection.inventory)?),
            kinds: inspection.kinds.iter().map(known).collect(),
            aspects: inspection.aspects.iter().map(known).collect(),
            ..Manifest::default()
        };
        let tree = Giving::of(dump.pid, dump.rules.into(), Addresses::default());
        let buffer_bytes = dump.buffer.saturating_mul(1 << 20);
        Ok(Self { tree, goal, buffer_bytes, manifest, files, interrupt, rounds: Vec::new() })
    }

    /// Where it fails, the tree goes on and nothing of the image is left.
    pub(super) fn run(mut self, writer: Writer, afterwards: Afterwards) -> Result<Dumped, Ending> {
        let Stored { stood_still, pages, files } = match self.store(writer, afterwards) {
            Ok(stored) => stored,
            Err(error) => return Err(self.let_go(error)),
        };
        let rounds = self.rounds.len();
        Ok(Dumped { notes: Vec::new(), rounds, stood_still, pages, files, afterwards })
    }

    fn let_go(&mut self, why: Error) -> Ending {
        match self.tree.thaw() {
            Ok(()) if self.interrupt.is_raised() => Ending::Cancelled,
            Ok(()) => Ending::from(why),
            Err(error) => Ending::StandsStill([chain(&error), chain(&why)].concat()),
        }
    }

    fn store(&mut self, mut writer: Writer, afterwards: Afterwards) -> Result<Stored, Error> {
        self.copy_ahead(&mut writer)?;
        let urgent = Urgent::begin();
        let began = self.freeze()?;
        let layout = self.tree.frozen_layout()?;
        writer.shape(&layout)?;
        self.tree.capture()?;
        let mut buffer = Buffer::new(&mut writer, self.buffer_bytes);
        self.tree.rest(Later::Nothing, &mut Interruptible(self.interrupt, &mut buffer))?;
        let image = self.tree.image()?.image;
        let mut sink = Interruptible(self.interrupt, &mut buffer);
        let copied = self.files.take().map(|files| files.copy_the_rest(&layout, &image, &mut sink));
        let copied = copied.transpose()?;
        let dumped_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut stood_still = began.elapsed();
        if afterwards == Afterwards::Runs {
            self.tree.thaw()?;
            stood_still = began.elapsed();
        }
        drop(urgent);
        let _yielding = Yielding::begin(Half::Upper);
        buffer.flush()?;
        // What can fail or be cancelled comes before there is an image.
        match afterwards {
            Afterwards::Runs => {}
            Afterwards::StandsStill => self.tree.stand_still()?,
            Afterwards::Ends => self.tree.prepare_to_end()?,
        }
        self.pause(Duration::ZERO)?;
        let pids: Vec<i32> = layout.processes.iter().map(|process| process.pid).collect();
        let files = copied.as_ref().map(|copied| (copied.files.len(), copied.bytes()));
        let tree = Tree { layout: Some(layout), image: Some(image), copied };
        let manifest = Manifest {
            dumped_at_ms: u64::try_from(dumped_at.as_millis()).unwrap_or(u64::MAX),
            ..std::mem::take(&mut self.manifest)
        };
        let pages = writer.finish(&tree, manifest)?;
        // From here on nothing fails; but we may be killed.
        let _only_killed = failure_point::reach("dump.finish.after");
        match afterwards {
            Afterwards::Runs => {}
            Afterwards::StandsStill => self.tree.leave_stopped(),
            Afterwards::Ends => {
                self.tree.end_recorded();
                wait_until_reaped(&pids);
            }
        }
        Ok(Stored { stood_still, pages, files })
    }

    fn copy_ahead(&mut self, writer: &mut Writer) -> Result<(), Error> {
        let mut layout = self.tree.open()?;
        if let Some(files) = &mut self.files {
            files.copy_ahead(writer, self.interrupt)?;
        }
        if self.goal.rounds_max == 0 {
            return writer.shape(&layout);
        }
        let _yielding = Yielding::begin(Half::Upper);
        while let Next::Round { after_ms, .. } = convergence::next(&self.goal, &self.rounds) {
            self.pause(Duration::from_millis(after_ms))?;
            let began = Instant::now();
            layout = match convergence::is_last(&self.goal, &self.rounds) {
                true => self.tree.layout(Before::TheFreeze)?,
                false => self.tree.layout(Before::MoreRounds)?,
            };
            writer.shape(&layout)?;
            let mut sink = Interruptible(self.interrupt, writer);
            let round = self.tree.round(&mut sink)?;
            let duration_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let Left { dirty_pages, held_back_pages, compared_pages } = self.tree.peek()?;
            self.rounds.push(convergence::Round {
                pages: round.data_pages,
                duration_ns,
                dirty_pages,
                held_back_pages,
                compared_pages,
                withdrew: false,
            });
        }
        self.pause(Duration::ZERO)
    }

    fn pause(&self, duration: Duration) -> Result<(), Error> {
        let root = Object::Process { pid: self.tree.root() };
        self.interrupt.pause(duration).map_err(|source| Error::new("copy", root, source))
    }

    fn freeze(&mut self) -> Result<Instant, Error> {
        let limit = Instant::now() + TAKE_IN_MAX;
        loop {
            self.tree.let_newcomers_in(limit)?;
            match self.tree.freeze(false)? {
                Freeze::Stands { since } => return Ok(since),
                Freeze::SomebodyWaits(waiting) if Instant::now() > limit => {
                    return Err(Error::invalid(STOP_AT, waiting.at, waiting.wait.why));
                }
                Freeze::SomebodyWaits(_) | Freeze::SomebodyListens => {}
            }
        }
    }
}

/// Their parents have to do that; until then their ids are taken, and a restore would be refused.
fn wait_until_reaped(pids: &[i32]) {
    let limit = Instant::now() + REAP_WAIT;
    let is_there = |pid: &i32| Path::new(&format!("/proc/{pid}")).exists();
    while pids.iter().any(is_there) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Stored {
    stood_still: Duration,
    pages: u64,
    files: Option<(usize, u64)>,
}

fn known(offered: &Offered) -> Known {
    Known { name: offered.name.clone(), version: offered.version }
}

impl Dumped {
    pub(super) fn tell(&self, pid: i32, directory: &Path, output: &Output) {
        let Self { notes, rounds, stood_still, pages, files, afterwards } = self;
        for note in notes {
            output.event(&Event::Note { text: note.clone() });
            output.text(note);
        }
        let (memory_bytes, directory) = (pages * PAGE_BYTES, directory.display().to_string());
        let still_ms = stood_still.as_secs_f64() * 1000.0;
        let fate = match afterwards {
            Afterwards::Ends => "ended".to_owned(),
            Afterwards::Runs => format!("stood still for {still_ms:.1} ms and runs"),
            Afterwards::StandsStill => "stands still".to_owned(),
        };
        let with = files.map_or_else(String::new, |(files, bytes)| {
            format!(", and {files} files with {} MiB", bytes >> 20)
        });
        let (files, file_bytes) = files.unwrap_or_default();
        output.text(&format!(
            "Dumped into {directory}: {} MiB of memory in {rounds} rounds{with}. Process {pid} {fate}.",
            memory_bytes >> 20
        ));
        output.event(&Event::Dumped(DumpSummary {
            directory,
            rounds: u32::try_from(*rounds).unwrap_or(u32::MAX),
            memory_bytes,
            files,
            file_bytes,
            frozen_ms: still_ms,
        }));
    }
}

/// Pages are handed on until somebody wants it no more.
pub(super) struct Interruptible<'a>(pub(super) &'a Interrupt, pub(super) &'a mut dyn PageSink);

impl PageSink for Interruptible<'_> {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.pause(Duration::ZERO)?;
        self.1.data(space, address, bytes)
    }

    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.1.zero(space, address, pages)
    }

    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.1.dropped(space, address, pages)
    }
}
