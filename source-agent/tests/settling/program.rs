//! The process that is moved: it sleeps, and we look at how it stands.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start() -> Self {
        let mut command = Command::new("setsid");
        command.args(["sleep", "1000"]).stdin(Stdio::null()).stdout(Stdio::null());
        let program = Self(command.stderr(Stdio::null()).spawn().unwrap());
        let end = Instant::now() + WAIT;
        while !program.status().starts_with("Name:\tsleep\n") {
            assert!(Instant::now() < end, "setsid becomes sleep");
            std::thread::sleep(Duration::from_millis(5));
        }
        program
    }

    pub(crate) fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Neither stopped nor traced.
    pub(crate) async fn runs_free(&self) {
        let is_free =
            |status: &str| status.contains("State:\tS") && status.contains("TracerPid:\t0");
        self.becomes("free", is_free).await;
    }

    pub(crate) async fn stands_still(&self) {
        let is_still = |status: &str| status.contains("State:\tt") || status.contains("State:\tT");
        self.becomes("still", is_still).await;
    }

    pub(crate) fn is_gone(&mut self) {
        assert!(!self.0.wait().unwrap().success());
    }

    async fn becomes(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let end = Instant::now() + WAIT;
        while !is_so(&self.status()) {
            assert!(Instant::now() < end, "it is not {what}: {}", self.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn status(&self) -> String {
        fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _it_has_ended = self.0.kill();
        let _it_was_waited_for = self.0.wait();
    }
}
