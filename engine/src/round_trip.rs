//! The whole way on one host: a program is captured, killed, and built again from what was sent.

mod hostile;
mod sockets;
mod stored;

use crate::asleep::Asleep;
use crate::freeze;
use crate::image::{Layout, TreeImage, decode};
use crate::kinds::Rules;
use crate::memory::PageSink;
use crate::restore::{self, Restored};
use crate::source::{Along, Before, Later, Source};
use crate::stage::Stage;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use std::io;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What travels in the data plane, kept.
#[derive(Debug, Default)]
struct Recorded(Vec<Record>);

#[derive(Debug)]
enum Record {
    Data(u32, u64, Vec<u8>),
    Zero(u32, u64, u64),
    Dropped(u32, u64, u64),
}

impl PageSink for Recorded {
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

fn replay(recorded: &Recorded, stage: &Stage) {
    let filler = stage.filler();
    let filler = filler.read().unwrap();
    for record in &recorded.0 {
        match record {
            Record::Data(space, address, bytes) => filler.data(*space, *address, bytes),
            Record::Zero(space, address, pages) => filler.zero(*space, *address, *pages),
            Record::Dropped(space, address, pages) => filler.dropped(*space, *address, *pages),
        }
        .unwrap();
    }
}

/// Captures the program and kills it.
fn captured(child: &mut Child) -> (Layout, TreeImage, Recorded) {
    let root = i32::try_from(child.id()).unwrap();
    let mut source = Source::open(root, Rules::default(), Along::default()).unwrap();
    let mut recorded = Recorded::default();
    source.layout(Before::TheFreeze).unwrap();
    source.round(&mut recorded).unwrap();
    let frozen = freeze::freeze(root).unwrap();
    let layout = source.frozen_layout(&frozen).unwrap();
    let mut captured = source.capture(&frozen).unwrap();
    source.rest(&frozen, &mut captured, Later::Nothing, &mut recorded).unwrap();
    source.objects(&frozen, &mut captured).unwrap();
    assert_eq!(captured.missing_pages(), 0);
    frozen.hold().unwrap().end();
    // Having traced it we have waited for it already.
    let _ = child.wait();

    let layout: Layout = decode("layout", &layout.encode_to_vec()).unwrap();
    let image: TreeImage = decode("tree", &captured.image.encode_to_vec()).unwrap();
    // Its parent, init, may need a moment to reap what is left of it.
    while std::path::Path::new(&format!("/proc/{root}")).exists() {}
    (layout, image, recorded)
}

/// Captures the program, kills it, and builds it again under the same ids.
fn built_again(child: &mut Child) -> Restored {
    let (layout, image, recorded) = captured(child);
    let stage = Stage::begin(&layout, crate::clocks::Clocks::default(), None).unwrap();
    replay(&recorded, &stage);
    restore::build(stage, &image).unwrap()
}

/// It ends soon.
fn ends(child: &Child) {
    let process = std::path::PathBuf::from(format!("/proc/{}", child.id()));
    let end = Instant::now() + Duration::from_secs(10);
    while process.exists() {
        assert!(Instant::now() < end, "it ends");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn maps(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap()
}

#[test]
fn a_program_goes_on_where_it_stood_with_the_same_mappings() {
    let mut child = Asleep::run(Command::new("setsid").args(["sleep", "1"]));
    let before = maps(child.id());
    built_again(child.child()).run().unwrap();
    assert_eq!(maps(child.id()), before);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    assert!(status.contains("TracerPid:\t0"));
    ends(&child);
}

#[test]
fn a_signal_that_comes_while_it_is_built_ends_its_call() {
    let waits = "$SIG{USR1} = sub {}; select(undef, undef, undef, undef)";
    let mut child = Asleep::run(Command::new("setsid").args(["perl", "-e", waits]));
    let mut restored = built_again(child.child());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR1).unwrap();
    restored.run().unwrap();
    ends(&child);
}
