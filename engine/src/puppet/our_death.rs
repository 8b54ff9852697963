//! A program survives whoever steers it: the tracer is killed at every instant that differs.

use super::detour::Detour;
use super::lane::LANES;
use super::steered::all_signals_but;
use super::walk::Walk;
use super::*;
use crate::args;
use crate::batch::Batch;
use crate::sys::ptrace::{self, Event};
use crate::tracee::{Outcome, Running, STOP_WAIT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Tells the test binary that it is the tracer which is to die: the program's id and the moment.
const TRACER: &str = "TEST_TRACER_THAT_DIES";
const MOMENTS: [&str; 9] = [
    "before a single call",
    "in a single call",
    "after a single call",
    "before the first step",
    "at the end of a walk",
    "at the end of a lane",
    "between batches",
    "in a second batch",
    "in a slow call",
];

#[test]
fn a_sleeping_program_survives_its_tracer() {
    survives("sleep");
}

#[test]
fn a_waiting_program_survives_its_tracer() {
    survives("futex");
}

#[test]
fn a_computing_program_survives_its_tracer() {
    survives("compute");
}

/// Started again with the variable, a test is the tracer that dies.
fn survives(what: &str) {
    if let Ok(asked) = std::env::var(TRACER) {
        let (pid, moment) = asked.split_once(' ').unwrap();
        steer(pid.parse().unwrap(), moment);
    }
    if !std::arch::is_x86_feature_detected!("avx") {
        return crate::skipped::skip("this processor has no 256-bit registers");
    }
    compiled();
    thread::scope(|scope| {
        for moment in MOMENTS {
            scope.spawn(move || survives_at(what, moment));
        }
    });
}

fn survives_at(what: &str, moment: &str) {
    let mut program = start(what);
    let until_it_waits = if what == "sleep" { 2000 } else { 50 };
    thread::sleep(Duration::from_millis(until_it_waits));
    let status = kill_tracer_of(program.id(), moment);
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{what}, {moment}: {status}");
    assert_eq!(outcome(&mut program), (Some(0), true), "{what}, {moment}");
}

fn compiled() -> &'static Path {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("our_death.c");
        fs::write(&source, include_str!("our_death.c")).unwrap();
        let compiler = Command::new("cc")
            .args(["-O1", "-w", "-mavx", "-pthread", "-o"])
            .arg(directory.path().join("our_death"))
            .arg(source)
            .status();
        assert!(compiler.expect("a C compiler").success());
        directory
    });
    directory.path()
}

fn start(what: &str) -> Child {
    let mut program = Command::new(compiled().join("our_death"))
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte_by_byte = BufReader::with_capacity(1, program.stdout.as_mut().unwrap());
    let mut line = String::new();
    byte_by_byte.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    program
}

fn kill_tracer_of(pid: u32, moment: &str) -> std::process::ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "puppet::our_death::a_sleeping_program_survives_its_tracer",
            "--nocapture",
        ])
        .env(TRACER, format!("{pid} {moment}"))
        .stdout(Stdio::null())
        .status()
        .unwrap()
}

/// Its exit code, and whether it said that all is as it was.
fn outcome(program: &mut Child) -> (Option<i32>, bool) {
    // Some time for what should not have happened to happen.
    thread::sleep(Duration::from_millis(300));
    let _gone = program.stdin.as_mut().unwrap().write_all(b"x");
    let mut status = None;
    for _ in 0..3000 {
        status = program.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _gone = program.kill();
    let _reaped = program.wait();
    let mut said = String::new();
    program.stdout.as_mut().unwrap().read_to_string(&mut said).unwrap();
    eprintln!("{status:?}: {said}");
    (status.and_then(|status| status.code()), said.contains("intact"))
}

fn die() -> ! {
    kill(Pid::this(), Signal::SIGKILL).unwrap();
    unreachable!("it was killed")
}

fn calls(number: i64) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..10 {
        batch.try_call(number, args![]);
    }
    batch
}

fn steer(pid: i32, moment: &str) -> ! {
    let Outcome::Alive(running) = Running::seize(pid, pid, OnOurDeath::Runs).unwrap() else {
        panic!("it is gone")
    };
    let Outcome::Alive(stopped) = running.stop(STOP_WAIT).unwrap() else { panic!("it is gone") };
    let steered = Steered::begin(&stopped).unwrap();
    let at = free_address(&[]).unwrap();
    let syscall_at = find_syscall(pid).unwrap();
    if let Some(stops) = ["before", "in", "after"].iter().position(|when| moment.starts_with(when))
        && moment.ends_with("a single call")
    {
        in_a_single_call(&steered, syscall_at, stops);
    }
    let puppet = Puppet::open(&steered, at, syscall_at, OnOurDeath::Runs).unwrap();
    let batch = calls(libc::SYS_getppid);
    let (whole, last) = (&Lane::WHOLE, Lane::narrow(LANES - 1));
    match moment {
        "before the first step" => drop(place(&puppet, whole, &steered, &batch)),
        "at the end of a walk" => to_the_end(&puppet, &place(&puppet, whole, &steered, &batch)),
        "at the end of a lane" => to_the_end(&puppet, &place(&puppet, &last, &steered, &batch)),
        "between batches" => {
            puppet.run(&steered, &batch).unwrap();
        }
        "in a second batch" => {
            puppet.run(&steered, &batch).unwrap();
            place(&puppet, whole, &steered, &batch);
        }
        "in a slow call" => in_a_slow_call(&puppet, &steered),
        other => panic!("{other} is no moment"),
    }
    die()
}

fn in_a_single_call(steered: &Steered<'_>, syscall_at: u64, stops: usize) -> ! {
    let detour = Detour::lay(steered, syscall_at).unwrap().expect("there is room");
    let at = detour.syscall_at();
    let registers = blob::calling(steered.registers(), at, libc::SYS_getppid, [0; 6]);
    steered.take(&registers, all_signals_but(libc::SIGTRAP)).unwrap();
    for _ in 0..stops {
        let is_syscall = |event| event == Event::Syscall;
        steered.thread().run_to(ptrace::cont_to_syscall, is_syscall, STOP_WAIT).unwrap();
    }
    die()
}

/// Up to the moment before the thread's first step.
fn place<'a>(
    puppet: &Puppet,
    lane: &'a Lane,
    steered: &'a Steered<'a>,
    batch: &'a Batch,
) -> Walk<'a> {
    let walk = Walk { lane, steered, batch, ends: puppet.prepare(lane, steered, batch).unwrap() };
    puppet.place(&walk, 0..batch.len(), &[]).unwrap();
    walk
}

fn to_the_end(puppet: &Puppet, walk: &Walk<'_>) -> ! {
    walk.steered.thread().resume(|tid| ptrace::cont(tid, 0)).unwrap();
    puppet.arrive(walk, 0..walk.batch.len(), &mut Vec::new()).unwrap();
    die()
}

fn in_a_slow_call(puppet: &Puppet, steered: &Steered<'_>) {
    let mut batch = Batch::new();
    let duration = batch.bytes(&[0_u64.to_ne_bytes(), 800_000_000_u64.to_ne_bytes()].concat());
    batch.try_call(libc::SYS_nanosleep, args![duration, 0]);
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(100));
        die();
    });
    puppet.run(steered, &batch).unwrap();
    panic!("it was to be killed meanwhile");
}
