//! The command under test, with a home and a journal of its own.

use crate::destination::Destination;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

const WAIT: Duration = Duration::from_secs(60);
const SAID: &str = "said";

#[derive(Debug)]
pub(crate) struct Migrate {
    child: Child,
    /// Both directories of a host: what it knows, and its journal.
    home: Arc<TempDir>,
}

impl Migrate {
    pub(crate) fn start(destination: &Destination, arguments: &[&str]) -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let known = format!("{} {}\n", destination.host(), destination.fingerprint());
        std::fs::write(home.path().join("known_hosts"), known).unwrap();
        let place = destination.place();
        Self::run(home, &[arguments, &["--to", &place]].concat())
    }

    /// The same host once more.
    pub(crate) fn again(&self, arguments: &[&str]) -> Self {
        Self::run(Arc::clone(&self.home), arguments)
    }

    fn run(home: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut command = migrate(home.path(), arguments);
        command.stdout(File::create(home.path().join(SAID)).unwrap());
        let child = command.arg("--config").arg(home.path()).spawn().unwrap();
        Self { child, home }
    }

    /// Its exit code.
    pub(crate) async fn end(&mut self) -> i32 {
        let end = Instant::now() + WAIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("it is not killed");
            }
            assert!(Instant::now() < end, "it ends: {}", self.said());
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.home.path().join(SAID)).unwrap()
    }

    /// Ctrl-C, when it has noticed that it is in doubt.
    pub(crate) async fn interrupt(&self) {
        sleep(Duration::from_secs(1)).await;
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn list(&self) -> String {
        let output = migrate(self.home.path(), &["list"]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Migrate {
    fn drop(&mut self) {
        let _it_has_ended = self.child.kill();
        let _it_was_waited_for = self.child.wait();
    }
}

fn migrate(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
    command.args(arguments).arg("--state").arg(home).stdin(Stdio::null());
    command
}
