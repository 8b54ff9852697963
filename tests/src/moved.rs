//! What `migrate --json` said about one move.

use crate::host_init::Status;
use crate::hosts::Started;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::ops::Range;
use std::time::Duration;

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

    /// When the tree stood still, by the wall clock in microseconds since 1970.
    pub fn freeze_us(&self) -> Result<Range<u64>> {
        let summary = self.summary()?;
        let began = summary["frozen_at_us"].as_u64().context("when the freeze began")?;
        let lasted = summary["downtime_ms"].as_f64().context("how long the freeze lasted")?;
        let lasted = Duration::try_from_secs_f64(lasted / 1e3)?;
        Ok(began..began + u64::try_from(lasted.as_micros())?)
    }

    /// When the tree's connections lived on no host, as far as can be known for certain: from when the
    /// source had read them until the destination was told that it may, by the wall clock in
    /// microseconds since 1970.
    pub fn gap_us(&self) -> Result<Range<u64>> {
        let (frozen, steps) = (self.freeze_us()?, &self.summary()?["freeze_ms"]);
        let before_the_end = |names: &[&str]| {
            let ms = names.iter().map(|name| steps[*name].as_f64().context("a step of the freeze"));
            let us = Duration::try_from_secs_f64(ms.sum::<Result<f64>>()? / 1e3)?.as_micros();
            Ok::<u64, anyhow::Error>(frozen.end - u64::try_from(us)?)
        };
        let given = before_the_end(&["handover"])?;
        Ok(before_the_end(&["handover", "surrender", "build and wire"])?..given)
    }

    /// Each refusal as one line: object, reason, advice.
    pub fn refusals(&self) -> Vec<String> {
        let line =
            |value: &Value| ["object", "reason", "advice"].map(|key| text(&value[key])).join(" | ");
        self.named("refusal").map(line).collect()
    }

    /// The causes of a failure in one line, and where the tree runs now.
    pub fn failure(&self) -> String {
        let line =
            |value: &Value| format!("{} runs_on {}", value["chain"], text(&value["runs_on"]));
        self.named("failure").map(line).collect()
    }

    /// Fails unless its refusals and failures name each of these. What the agents logged beside
    /// them does not count.
    pub fn expect_names(&self, names: &[&str]) -> Result<()> {
        let said = format!("{} {}", self.refusals().join("\n"), self.failure());
        let unnamed = names.iter().find(|name| !said.contains(**name));
        ensure!(unnamed.is_none(), "it does not name {unnamed:?}: {}", self.story());
        Ok(())
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
{"event":"summary","frozen_at_us":5000,"downtime_ms":7.25,"freeze_ms":{"build and wire":3,"surrender":1,"handover":2,"stop":1}}
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
        assert_eq!(moved.failure(), r#"["send","reset"] runs_on source"#);
        assert!(moved.expect_names(&["fd 7", "reset"]).is_ok());
        assert!(moved.expect_names(&["it said so"]).is_err());
        assert_eq!(moved.summary().unwrap()["downtime_ms"], 7.25);
        assert_eq!(moved.freeze_us().unwrap(), 5000..12250);
        assert_eq!(moved.gap_us().unwrap(), 6250..10250);
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
