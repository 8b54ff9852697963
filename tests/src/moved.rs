//! What `migrate --json` said about one move.

use crate::host_init::Status;
use crate::hosts::Started;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;

/// The documented exit codes of `migrate`.
pub mod exit {
    pub const MOVED: i32 = 0;
    pub const USAGE: i32 = 2;
    /// Nothing was touched.
    pub const REFUSED: i32 = 3;
    /// The tree runs on the source.
    pub const FAILED: i32 = 4;
    /// The tree runs on the source, as the operator asked.
    pub const CANCELLED: i32 = 5;
    pub const IN_DOUBT: i32 = 6;
    /// The tree runs on the destination, but pages of it are still missing.
    pub const PAGES_MISSING: i32 = 7;
}

#[derive(Clone, Debug)]
pub struct Moved {
    pub exit: i32,
    pub events: Vec<Value>,
    pub stderr: String,
    /// The most memory that `migrate` had resident, in KiB.
    pub peak_kib: u64,
}

impl Moved {
    pub(crate) fn read(status: Status, command: &Started, peak_kib: u64) -> Result<Self> {
        let stderr = fs::read_to_string(&command.stderr)?;
        let Status::Exited(exit) = status else { bail!("migrate: {status:?}: {stderr}") };
        let stdout = fs::read_to_string(&command.stdout)?;
        let events = stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        let events = events.with_context(|| format!("migrate --json said {stdout:?}"))?;
        Ok(Self { exit, events, stderr, peak_kib })
    }

    /// This move, if the tree now runs on the destination with all its pages.
    pub fn success(self) -> Result<Self> {
        ensure!(self.exit == exit::MOVED, "{}", self.story());
        Ok(self)
    }

    /// Everything that was said, for the message of a failing test.
    pub fn story(&self) -> String {
        let events: Vec<String> = self.events.iter().map(Value::to_string).collect();
        format!("migrate ended with {}\n{}\n{}", self.exit, events.join("\n"), self.stderr)
    }

    pub fn named(&self, event: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |value| value["event"] == *event)
    }

    pub fn summary(&self) -> Result<&Value> {
        self.named("summary").last().with_context(|| format!("no summary: {}", self.story()))
    }

    /// Each refusal as one line: object, reason, advice.
    pub fn refusals(&self) -> Vec<String> {
        let line =
            |value: &Value| ["object", "reason", "advice"].map(|key| text(&value[key])).join(" | ");
        self.named("refusal").map(line).collect()
    }

    /// The causes of a failure in one line.
    pub fn failure(&self) -> String {
        self.named("failure").map(|value| value["chain"].to_string()).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
