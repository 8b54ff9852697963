//! Many threads that each do a batch, several at a time.

use super::lane::LANES;
use super::*;
use crate::args;
use crate::error::Object;
use crate::tracee::{Outcome, Running, STOP_WAIT, Stopped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

/// Tells the test binary that it is the program.
const PROGRAM: &str = "TEST_PROGRAM_WITH_THREADS";
const THREADS: usize = 3 * LANES;

struct Program(Child);

impl Program {
    fn start(test: &str) -> Self {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", &format!("puppet::many::{test}"), "--nocapture"]);
        let program = Self(program.env(PROGRAM, "1").stdout(Stdio::null()).spawn().unwrap());
        while program.tids().len() <= THREADS {
            thread::sleep(Duration::from_millis(5));
        }
        program
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn tids(&self) -> Vec<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    fn stopped(&self) -> Vec<Stopped> {
        let stop = |tid| match Running::seize(self.pid(), tid, OnOurDeath::Runs).unwrap() {
            Outcome::Alive(running) => running.stop(STOP_WAIT).unwrap(),
            Outcome::Gone => panic!("all of them sleep"),
        };
        let stopped = self.tids().into_iter().map(stop);
        stopped
            .map(|stopped| match stopped {
                Outcome::Alive(stopped) => stopped,
                Outcome::Gone => panic!("all of them sleep"),
            })
            .collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

/// As the program: its threads, that sleep until it is killed.
fn sleep_as_program() {
    if std::env::var_os(PROGRAM).is_some() {
        let asleep = || thread::spawn(|| thread::sleep(Duration::from_secs(60)));
        let threads: Vec<_> = (1..THREADS).map(|_| asleep()).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn with_threads(test: &str, run: impl FnOnce(&Puppet, &[Stopped])) {
    sleep_as_program();
    let program = Program::start(test);
    let threads = program.stopped();
    let places = |threads: &[Stopped]| -> Vec<(u64, u64, u64)> {
        let place = |thread: &Stopped| {
            let registers = thread.registers().unwrap();
            (registers.rip, registers.rsp, thread.signal_mask().unwrap())
        };
        threads.iter().map(place).collect()
    };
    let before = places(&threads);
    let first = Steered::begin(&threads[0]).unwrap();
    let syscall_at = find_syscall(program.pid()).unwrap();
    let at = free_address(&[]).unwrap();
    let puppet = Puppet::open(&first, at, syscall_at, OnOurDeath::Runs).unwrap();
    run(&puppet, &threads);
    puppet.close(&first, syscall_at).unwrap();
    first.end().unwrap();
    assert_eq!(before, places(&threads));
    threads.into_iter().for_each(|thread| thread.release().unwrap());
}

fn errand(thread: &Stopped, calls: usize) -> Errand<'_, (i32, Vec<crate::batch::Call>)> {
    let mut batch = Batch::new();
    let calls = (0..calls).map(|_| batch.try_call(libc::SYS_gettid, args![])).collect();
    let steered = Steered::begin(thread).unwrap();
    Errand { steered, batch, about: (thread.tid(), calls) }
}

#[test]
fn each_does_its_own_also_one_that_has_much_to_do() {
    with_threads("each_does_its_own_also_one_that_has_much_to_do", |puppet, threads| {
        let mut heard = Vec::new();
        let much = Lane::narrow(0).entries_max() + 1;
        let calls = |number: usize| if number == LANES + 3 { much } else { 1 + number % 7 };
        let errands = threads.iter().enumerate();
        let errands = errands.map(|(number, thread)| Ok(errand(thread, calls(number))));
        let ran = puppet.run_each(errands, |(tid, calls), steered, answers| {
            assert!(calls.iter().all(|&call| answers.raw(call) == i64::from(tid)));
            heard.push((tid, calls.len()));
            steered.end()
        });
        ran.unwrap();
        let all = threads.iter().enumerate();
        let all: Vec<_> = all.map(|(number, thread)| (thread.tid(), calls(number))).collect();
        assert_eq!(heard, all);
    });
}

#[test]
fn after_a_failure_nobody_is_left_on_the_way() {
    with_threads("after_a_failure_nobody_is_left_on_the_way", |puppet, threads| {
        let mut heard = 0;
        let failing = LANES + 2;
        let errands = threads.iter().enumerate().map(|(number, thread)| {
            assert!(number <= failing + LANES, "nobody sets out any more");
            let mut errand = errand(thread, 1);
            if number == failing {
                let object = Object::Fd { pid: 1, fd: 77, kind: "file" };
                errand.batch.call("close", &object, libc::SYS_close, args![-1]);
            }
            Ok(errand)
        });
        let ran = puppet.run_each(errands, |_, steered, _| {
            heard += 1;
            steered.end()
        });
        assert_eq!(ran.unwrap_err().to_string(), "close file at fd 77 of process 1");
        assert_eq!(heard, failing);
    });
}
