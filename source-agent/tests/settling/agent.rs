//! The source agent of the host under test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct SourceAgent {
    child: Child,
    socket: PathBuf,
}

impl SourceAgent {
    /// `failure` is one of the engine's failure points, and what happens there.
    pub(crate) fn start(home: &Path, failure: &str) -> Self {
        let socket = home.join("agent.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_source-agent"));
        command.arg("--socket").arg(&socket).arg("--config").arg(home).arg("--state").arg(home);
        command.env("MIGRATE_FAIL", failure).stdin(Stdio::null()).stdout(Stdio::null());
        let agent = Self { child: command.stderr(Stdio::null()).spawn().unwrap(), socket };
        let end = Instant::now() + WAIT;
        while !agent.socket.exists() {
            assert!(Instant::now() < end, "the source agent listens");
            std::thread::sleep(Duration::from_millis(5));
        }
        agent
    }

    pub(crate) fn socket(&self) -> &str {
        self.socket.to_str().unwrap()
    }
}

impl Drop for SourceAgent {
    fn drop(&mut self) {
        let _it_has_ended = self.child.kill();
        let _it_was_waited_for = self.child.wait();
    }
}
