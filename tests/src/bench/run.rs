//! What one move has measured.

use super::cost::Cost;
use super::rate::Slowed;
use super::wire::Sample;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// As the program sees it.
    pub downtime_ms: f64,
    /// How much of that lies in the freeze; the rest has other causes. None where nobody can tell.
    pub in_freeze_ms: Option<f64>,
    /// The same of the time before it, while the program was copied.
    pub before_freeze_ms: Option<f64>,
    /// The longest that the machine itself kept a real-time thread from running meanwhile.
    #[serde(default)]
    pub machine_ms: f64,
    /// What made up the time in which it stood still, in order.
    pub steps: Vec<Step>,
    /// From the command to its end.
    pub total_ms: f64,
    /// From when it ran until the last of its pages was there. None of a move without such pages.
    pub last_page_ms: Option<f64>,
    pub wire_bytes: u64,
    pub source: Cost,
    pub destination: Cost,
    /// None of a move that does not copy while the program runs.
    pub slowed: Option<Slowed>,
    pub rounds: Vec<Round>,
    /// What has passed the source's link since the command began.
    pub wire: Vec<Sample>,
    /// When it was frozen, in milliseconds since the command began.
    pub frozen_at_ms: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub ms: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    pub bytes: u64,
    pub duration_ms: f64,
    /// Written again meanwhile.
    pub dirty_pages: u64,
    pub predicted_ms: f64,
}

impl Round {
    /// From an event of `migrate --json`.
    pub(super) fn read(event: &Value) -> Result<Self> {
        let whole = |name: &str| event[name].as_u64().with_context(|| format!("{name} of a round"));
        let ms = |name: &str| event[name].as_f64().with_context(|| format!("{name} of a round"));
        Ok(Self {
            bytes: whole("bytes")?,
            duration_ms: ms("duration_ms")?,
            dirty_pages: whole("dirty_pages")?,
            predicted_ms: ms("predicted_ms")?,
        })
    }
}

/// The steps of a freeze that add up to it: those of the destination are parts of others. The longest first.
pub(super) fn steps(freeze_ms: &Value) -> Result<Vec<Step>> {
    let named = freeze_ms.as_object().context("the steps of the freeze")?;
    let own = named.iter().filter(|(name, _)| !name.starts_with("destination: "));
    let step = |(name, ms): (&String, &Value)| {
        let ms = ms.as_f64().with_context(|| format!("how long {name:?} took"))?;
        Ok(Step { name: name.clone(), ms })
    };
    let mut steps = own.map(step).collect::<Result<Vec<Step>>>()?;
    steps.sort_by(|one, other| other.ms.total_cmp(&one.ms));
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_round_is_read_from_its_event_and_not_from_half_of_it() {
        let mut event = json!({"event": "round", "bytes": 4096, "duration_ms": 1.5, "dirty_pages": 3,
            "predicted_ms": 0.25});
        let round = Round { bytes: 4096, duration_ms: 1.5, dirty_pages: 3, predicted_ms: 0.25 };
        assert_eq!(Round::read(&event).unwrap(), round);
        event["dirty_pages"] = json!(null);
        assert!(Round::read(&event).unwrap_err().to_string().contains("dirty_pages"));
    }

    #[test]
    fn the_steps_of_the_destination_are_not_counted_twice() {
        let steps = steps(&json!({"stop": 1.0, "build and wire": 4.0, "destination: memory": 3.0}));
        let steps: Vec<String> = steps.unwrap().into_iter().map(|step| step.name).collect();
        assert_eq!(steps, ["build and wire", "stop"]);
    }
}
