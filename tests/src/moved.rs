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

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"{"event":"phase","name":"rounds"}
{"event":"round","round":1,"pages":7,"bytes":28672}
{"event":"refusal","object":"fd 7","reason":"is a tty","advice":"Close it."}
{"event":"failure","chain":["send","reset"],"runs_on":"source"}
{"event":"summary","downtime_ms":7}
"#;

    fn moved(status: Status, said: &str) -> Result<Moved> {
        let directory = tempfile::tempdir()?;
        let [stdout, stderr] = ["out", "err"].map(|name| directory.path().join(name));
        fs::write(&stdout, said)?;
        fs::write(&stderr, "it said so")?;
        Moved::read(status, &Started { pid: 1, stdout, stderr }, 5)
    }

    #[test]
    fn events_are_found_by_their_kind() {
        let moved = moved(Status::Exited(0), SAID).unwrap();
        assert_eq!(moved.named("round").count(), 1);
        assert_eq!(moved.refusals(), ["fd 7 | is a tty | Close it."]);
        assert_eq!(moved.failure(), r#"["send","reset"]"#);
        assert_eq!(moved.summary().unwrap()["downtime_ms"], 7);
        assert!(moved.success().is_ok());
    }

    #[test]
    fn any_other_end_is_no_success_and_tells_the_story() {
        let failed = moved(Status::Exited(exit::FAILED), SAID).unwrap().success().unwrap_err();
        assert!(failed.to_string().contains("reset") && failed.to_string().contains("it said so"));
        assert!(moved(Status::Killed(9), SAID).is_err());
        assert!(moved(Status::Exited(0), "not json\n").is_err());
    }
}
