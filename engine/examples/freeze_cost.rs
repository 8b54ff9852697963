//! What a freeze costs, by step and without a network: a program is frozen, captured, killed and
//! built again in its place, time after time. Prints the median of every step.
//!
//!     freeze_cost ROUNDS PROGRAM [ARGUMENT...]
//!
//! As root, on a machine that does nothing else.

use engine::clocks::Clocks;
use engine::freeze;
use engine::kinds::Rules;
use engine::memory::PageSink;
use engine::restore::{self, Restored};
use engine::source::{Along, Before, Later, Source};
use engine::stage::Stage;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Between two rounds, so that the program gets to run.
const PAUSE: Duration = Duration::from_millis(200);

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: u32 = arguments.next().ok_or("how many rounds?")?.parse()?;
    let program = arguments.next().ok_or("which program?")?;
    let mut command = Command::new("setsid");
    // Never waited for by name: who traces a child has waited for it already when it ends.
    let child = command.arg(program).args(arguments).stdout(Stdio::null()).spawn()?;
    let pid = child.id().cast_signed();
    let measured = measure(pid, rounds);
    let killed = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
    let steps = measured?;
    killed?;
    for (step, mut times) in steps {
        times.sort();
        writeln!(io::stdout(), "{:>10.3} ms  {step}", times[times.len() / 2].as_secs_f64() * 1e3)?;
    }
    Ok(())
}

#[derive(Default)]
struct Steps(BTreeMap<String, Vec<Duration>>);

impl Steps {
    fn add(&mut self, step: &str, took: Duration) {
        self.0.entry(step.to_owned()).or_default().push(took);
    }

    fn time<T>(&mut self, step: &str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        self.add(step, began.elapsed());
        done
    }
}

fn measure(pid: i32, rounds: u32) -> Fallible<BTreeMap<String, Vec<Duration>>> {
    let mut steps = Steps::default();
    for _ in 0..rounds {
        sleep(PAUSE);
        once(pid, &mut steps)?;
    }
    Ok(steps.0)
}

fn once(pid: i32, steps: &mut Steps) -> Fallible<()> {
    let mut source = Source::open(pid, Rules::default(), Along::default())?;
    let mut pages = Kept::default();
    source.layout(Before::TheFreeze)?;
    source.round(&mut pages)?;
    source.layout(Before::TheFreeze)?;
    let began = Instant::now();
    let frozen = steps.time("1 stop", || freeze::freeze(pid))?;
    let layout = steps.time("2 layout", || source.frozen_layout(&frozen))?;
    let mut captured = source.capture(&frozen)?;
    for (step, took) in &captured.timings {
        steps.add(&format!("3 {step}"), *took);
    }
    let rest = || source.rest(&frozen, &mut captured, Later::Nothing, &mut pages);
    steps.time("4 pages", rest)?;
    steps.time("5 objects", || source.objects(&frozen, &mut captured))?;
    let here = began.elapsed();
    steps.time("kill", || frozen.hold().map(freeze::Held::end))?;
    while Path::new(&format!("/proc/{pid}")).exists() {}
    let stage = steps.time("stage", || Stage::begin(&layout, Clocks::default(), None))?;
    pages.replay(&stage)?;
    let began = Instant::now();
    let mut restored: Restored = restore::build(stage, &captured.image)?;
    for (step, took) in &restored.timings {
        steps.add(&format!("6 destination: {step}"), *took);
    }
    steps.time("7 run", || restored.run())?;
    steps.add("8 all but the wire", here + began.elapsed());
    Ok(())
}

/// What travels in the data plane.
#[derive(Default)]
struct Kept(Vec<Record>);

enum Record {
    Data(u32, u64, Vec<u8>),
    Zero(u32, u64, u64),
    Dropped(u32, u64, u64),
}

impl Kept {
    fn replay(&self, stage: &Stage) -> Result<(), engine::Error> {
        let filler = stage.filler();
        let filler = filler.read().expect("nobody else has it");
        self.0.iter().try_for_each(|record| match record {
            Record::Data(space, address, bytes) => filler.data(*space, *address, bytes),
            Record::Zero(space, address, pages) => filler.zero(*space, *address, *pages),
            Record::Dropped(space, address, pages) => filler.dropped(*space, *address, *pages),
        })
    }
}

impl PageSink for Kept {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.push(Record::Data(space, address, bytes.to_vec()));
        Ok(())
    }
    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.0.push(Record::Zero(space, address, pages));
        Ok(())
    }
    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.0.push(Record::Dropped(space, address, pages));
        Ok(())
    }
}
