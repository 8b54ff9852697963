//! The process whose memory is worked on: this executable once more, with an area that it writes,
//! replaces and touches when it is told to.

use engine::memory::tracker;
use engine::memory::{PAGE_BYTES, Run};
use engine::puppet::{Steered, find_syscall};
use engine::tracee::{OnOurDeath, Outcome, Running};
use std::hint::black_box;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// By which it knows that it is the program.
pub(crate) const ARGUMENT: &str = "--be-the-program";

pub(crate) const PAGES: u64 = 16 << 10;
const PAGE: usize = 4096;
/// malloc(3) maps what is larger than 32 MiB, whatever was freed before: it is untouched memory.
const AREA_BYTES: usize = 64 << 20;
/// Lazy memory is asked for by blocks at multiples of this.
const ALIGNMENT: usize = 64 << 10;
const STOP_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn start() -> Self {
        let ourselves = std::env::current_exe().expect("this executable");
        let mut child = Command::new(ourselves)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts once more");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(crate) fn area(&mut self) -> Run {
        Run { address: self.ask("area"), pages: PAGES }
    }

    /// The area is untouched memory again, maybe at another address.
    pub(crate) fn replace_area(&mut self) -> Run {
        Run { address: self.ask("replace"), pages: PAGES }
    }

    /// Writes one page in so many.
    pub(crate) fn write_every(&mut self, pages: usize) {
        self.ask(&format!("write {pages}"));
    }

    /// Touches one page in so many of the first ones, from the last to the first; how long that
    /// took, in nanoseconds.
    pub(crate) fn touch_every(&mut self, pages: usize, of_pages: usize) -> u64 {
        self.ask(&format!("touch {pages} {of_pages}"))
    }

    /// A line there and back.
    pub(crate) fn answer(&mut self) {
        self.ask("nothing");
    }

    fn ask(&mut self, question: &str) -> u64 {
        writeln!(self.input, "{question}").expect("the program listens");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the program answers");
        answer.trim_end().parse().expect("with a number")
    }

    /// A userfaultfd of its memory, made and taken as it is in a migration.
    pub(crate) fn userfaultfd(&self) -> OwnedFd {
        let pid = self.pid();
        let running = alive(Running::seize(pid, pid, OnOurDeath::Runs).expect("may be traced"));
        let stopped = alive(running.stop(STOP_WAIT).expect("stops"));
        let steered = Steered::begin(&stopped).expect("stands still");
        let syscall_at = find_syscall(pid).expect("it has a vdso");
        let taken = tracker::take_userfaultfd(&steered, syscall_at).expect("may be taken");
        steered.end().expect("it stands still");
        stopped.release().expect("it stands still");
        taken
    }
}

fn alive<T>(outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Alive(thread) => thread,
        Outcome::Gone => panic!("the program has ended"),
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What the program does.
pub(crate) fn run() {
    let mut area = Area::new();
    for line in io::stdin().lines() {
        let line = line.expect("lines of text");
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse().expect("a number");
        let answer = match words[0] {
            "area" => area.address(),
            "replace" => {
                area.bytes = Vec::new();
                area = Area::new();
                area.address()
            }
            "write" => area.write(AREA_BYTES / PAGE, number(1)),
            "touch" => area.write(number(2), number(1)),
            _ => 0,
        };
        writeln!(io::stdout(), "{answer}").expect("somebody listens");
    }
}

struct Area {
    bytes: Vec<u8>,
}

impl Area {
    fn new() -> Self {
        Self { bytes: vec![0; AREA_BYTES + ALIGNMENT] }
    }

    fn offset(&self) -> usize {
        self.bytes.as_ptr().addr().next_multiple_of(ALIGNMENT) - self.bytes.as_ptr().addr()
    }

    fn address(&self) -> u64 {
        (self.bytes.as_ptr().addr() + self.offset()) as u64
    }

    /// From the last page to the first: not the walk for which lazy memory looks ahead.
    fn write(&mut self, pages: usize, step: usize) -> u64 {
        let offset = self.offset();
        let began = Instant::now();
        for page in (0..pages).step_by(step).rev() {
            *black_box(&mut self.bytes[offset + page * PAGE]) = 1;
        }
        u64::try_from(began.elapsed().as_nanos()).expect("not that long")
    }
}

const _: () = assert!(PAGES * PAGE_BYTES == AREA_BYTES as u64 && PAGE as u64 == PAGE_BYTES);
