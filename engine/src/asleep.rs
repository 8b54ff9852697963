//! A program for a test to look at: started, and asleep in a call of its own. One that was only
//! just spawned may be in the midst of execve(2), without a vdso yet, whatever time has passed.

use std::ops::Deref;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// Ended with the test, also when that fails.
#[derive(Debug)]
pub(crate) struct Asleep(Child);

impl Asleep {
    /// `sleep` for longer than any test takes.
    pub(crate) fn start() -> Self {
        Self::run(Command::new("sleep").arg("600"))
    }

    /// Until the process itself sleeps; a child of it may be anywhere.
    pub(crate) fn run(command: &mut Command) -> Self {
        let program = Self(command.spawn().unwrap());
        program.falls_asleep();
        program
    }

    /// It does, though on a busy machine not at once.
    pub(crate) fn falls_asleep(&self) {
        let end = Instant::now() + WAIT_MAX;
        while self.state() != Some('S') {
            assert!(Instant::now() < end, "process {} does not come to sleep", self.pid());
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// As in proc_pid_stat(5).
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Ends it, and takes its remains away.
    pub(crate) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Deref for Asleep {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.end();
    }
}
