//! The command under test, with a home and a journal of its own.

use crate::destination::Destination;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

const WAIT: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;
const SAID: &str = "said";
const COMPLAINED: &str = "complained";

#[derive(Debug)]
pub(crate) struct Migrate {
    child: Child,
    /// Both directories of a host: what it knows, and its journal.
    home: Arc<TempDir>,
    /// Where it says something.
    words: Arc<TempDir>,
}

impl Migrate {
    pub(crate) fn start(destination: &Destination, arguments: &[&str]) -> Self {
        Self::start_at(home(destination), destination, arguments)
    }

    pub(crate) fn start_at(
        home: Arc<TempDir>,
        destination: &Destination,
        arguments: &[&str],
    ) -> Self {
        let place = destination.place();
        Self::run(home, &[arguments, &["--to", &place]].concat())
    }

    /// The same host once more.
    pub(crate) fn again(&self, arguments: &[&str]) -> Self {
        Self::run(Arc::clone(&self.home), arguments)
    }

    /// The same host once more, while this command goes on.
    pub(crate) fn beside(&self, arguments: &[&str]) -> Self {
        let words = Arc::new(tempfile::tempdir().unwrap());
        Self::saying(words, Arc::clone(&self.home), arguments)
    }

    fn run(home: Arc<TempDir>, arguments: &[&str]) -> Self {
        Self::saying(Arc::clone(&home), home, arguments)
    }

    fn saying(words: Arc<TempDir>, home: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut command = migrate(home.path(), arguments);
        command.stdout(File::create(words.path().join(SAID)).unwrap());
        command.stderr(File::create(words.path().join(COMPLAINED)).unwrap());
        let child = command.arg("--config").arg(home.path()).spawn().unwrap();
        Self { child, home, words }
    }

    /// Its exit code.
    pub(crate) async fn end(&mut self) -> i32 {
        let end = Instant::now() + WAIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("it is not killed");
            }
            assert!(Instant::now() < end, "it ends: {} {}", self.said(), self.complained());
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.words.path().join(SAID)).unwrap()
    }

    /// On standard error.
    pub(crate) fn complained(&self) -> String {
        std::fs::read_to_string(self.words.path().join(COMPLAINED)).unwrap()
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

/// Of a host that knows the destination.
pub(crate) fn home(destination: &Destination) -> Arc<TempDir> {
    let home = Arc::new(tempfile::tempdir().unwrap());
    let known = format!("{} {}\n", destination.host(), destination.fingerprint());
    std::fs::write(home.path().join("known_hosts"), known).unwrap();
    home
}

/// What a command that is soon over says, without any host to speak to: its exit code, its standard
/// output, and its standard error.
pub(crate) fn told(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    words(&mut migrate(home, arguments))
}

/// What a check of this host says.
pub(crate) fn checked(arguments: &[&str]) -> (i32, String, String) {
    words(Command::new(env!("CARGO_BIN_EXE_migrate")).arg("check").args(arguments))
}

/// The same, asked by a user who is not root, from where that user may read the program.
pub(crate) fn as_nobody(arguments: &[&str]) -> (i32, String, String) {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("migrate");
    std::fs::copy(env!("CARGO_BIN_EXE_migrate"), &program).unwrap();
    let mut command = Command::new(&program);
    words(command.args(arguments).uid(NOBODY).gid(NOBODY))
}

fn words(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn migrate(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
    command.args(arguments).arg("--state").arg(home).stdin(Stdio::null());
    command
}
