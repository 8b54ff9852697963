//! What `--json` says: one object a line. Names and units are for ever, as on the wire.

use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Phase {
        name: String,
    },
    Round {
        /// Counted from 1.
        round: u32,
        pages: u64,
        /// On the wire.
        bytes: u64,
        zero_pages: u64,
        dropped_pages: u64,
        duration_ms: f64,
        /// Written since the round was opened.
        dirty_pages: u64,
        /// How long the tree would stand still if it was frozen now.
        predicted_ms: f64,
    },
    Note {
        text: String,
    },
    Refusal {
        object: String,
        reason: String,
        advice: String,
    },
    Failure {
        /// What was being done, then every cause.
        chain: Vec<String>,
        runs_on: RunsOn,
    },
    Summary(Summary),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunsOn {
    Source,
    Destination,
    /// It ended by itself, or by somebody's hand.
    Nowhere,
    /// It stands still on the source until the destination was asked.
    Unknown,
}

#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// While the tree ran.
    pub(crate) rounds: u32,
    pub(crate) pages: u64,
    pub(crate) zero_pages: u64,
    pub(crate) dropped_pages: u64,
    pub(crate) bytes_wire: u64,
    /// How long each step of the freeze took.
    pub(crate) freeze_ms: BTreeMap<String, f64>,
    /// From the first stop here until the tree ran there, as far as can be known from here.
    pub(crate) downtime_ms: Option<f64>,
    pub(crate) lazy_faults: u64,
    pub(crate) lazy_fault_pages: u64,
    pub(crate) lazy_pushed_pages: u64,
    pub(crate) total_ms: f64,
    pub(crate) runs_on: RunsOn,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &Event) -> String {
        serde_json::to_string(event).unwrap()
    }

    #[test]
    fn the_names_on_the_wire_never_change() {
        assert_eq!(
            line(&Event::Phase { name: "rounds".into() }),
            r#"{"event":"phase","name":"rounds"}"#
        );
        let chain = vec!["send".to_owned(), "reset".to_owned()];
        assert_eq!(
            line(&Event::Failure { chain, runs_on: RunsOn::Source }),
            r#"{"event":"failure","chain":["send","reset"],"runs_on":"source"}"#
        );
        let round = Event::Round {
            round: 1,
            pages: 2,
            bytes: 3,
            zero_pages: 4,
            dropped_pages: 5,
            duration_ms: 6.5,
            dirty_pages: 7,
            predicted_ms: 8.0,
        };
        assert_eq!(
            line(&round),
            r#"{"event":"round","round":1,"pages":2,"bytes":3,"zero_pages":4,"dropped_pages":5,"duration_ms":6.5,"dirty_pages":7,"predicted_ms":8.0}"#
        );
    }

    #[test]
    fn a_summary_has_its_fields_beside_its_name() {
        let summary = Event::Summary(Summary {
            rounds: 1,
            pages: 2,
            zero_pages: 0,
            dropped_pages: 0,
            bytes_wire: 0,
            freeze_ms: BTreeMap::from([("stop".to_owned(), 0.5)]),
            downtime_ms: Some(3.25),
            lazy_faults: 0,
            lazy_fault_pages: 0,
            lazy_pushed_pages: 0,
            total_ms: 9.0,
            runs_on: RunsOn::Destination,
        });
        let value: serde_json::Value = serde_json::from_str(&line(&summary)).unwrap();
        assert_eq!(value["event"], "summary");
        assert_eq!(value["freeze_ms"]["stop"], 0.5);
        assert_eq!(value["runs_on"], "destination");
    }
}
