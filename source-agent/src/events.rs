//! What `--json` says: one object a line. Names and units are for ever, as on the wire, and stand
//! in `docs/json.md`.

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
        /// A sentence that names the object.
        reason: String,
        advice: String,
    },
    Failure {
        /// What was being done, then every cause.
        chain: Vec<String>,
        runs_on: RunsOn,
    },
    Summary(Summary),
    Dumped(DumpSummary),
    Restored(RestoreSummary),
    Feature(FeatureFound),
    Verdict(HostVerdict),
}

/// A kernel feature that we use, and whether this host has it.
#[derive(Debug, Serialize)]
pub(crate) struct FeatureFound {
    pub(crate) name: &'static str,
    /// The first Linux that has it.
    pub(crate) since: &'static str,
    pub(crate) state: FeatureState,
    /// What cannot be done without it; nothing when it is only useful.
    pub(crate) needed_for: Vec<&'static str>,
    /// The feature that does as well.
    pub(crate) unless: Option<&'static str>,
    /// A sentence: what is lost without it.
    pub(crate) loss: &'static str,
    /// Of one that is not present.
    pub(crate) why: Option<String>,
    pub(crate) advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FeatureState {
    Present,
    Missing,
    /// It could not be tried out.
    Unknown,
}

/// What can be done on this host.
#[derive(Debug, Serialize)]
pub(crate) struct HostVerdict {
    pub(crate) send: Says,
    pub(crate) receive: Says,
    pub(crate) store: Says,
    pub(crate) restore: Says,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Says {
    Yes,
    No,
    Unknown,
}

/// An image is whole.
#[derive(Debug, Serialize)]
pub(crate) struct DumpSummary {
    pub(crate) directory: String,
    /// While the tree ran.
    pub(crate) rounds: u32,
    /// In the image and its parents, without zeros.
    pub(crate) memory_bytes: u64,
    /// That were copied into it.
    pub(crate) files: usize,
    pub(crate) file_bytes: u64,
    /// How long the tree stood still; of one that does not go on, until all of it was taken down.
    pub(crate) frozen_ms: f64,
}

/// A tree runs again.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RestoreSummary {
    pub(crate) pid: i32,
    /// From the beginning of the command until it ran.
    pub(crate) elapsed_ms: f64,
    /// Pages that are still to come.
    pub(crate) missing_pages: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunsOn {
    Source,
    Destination,
    /// It ended by itself, or by somebody's hand.
    Nowhere,
    /// It stands still on the source: in doubt, or because it could not be let go on.
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
    /// The wall clock of this host at the first stop, in microseconds since 1970.
    pub(crate) frozen_at_us: Option<u64>,
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

    const DOCUMENTED: &str = include_str!("../../docs/json.md");

    /// The names in the first column of the table below a heading.
    fn documented(heading: &str) -> Vec<String> {
        let section = DOCUMENTED.split("\n## ").find(|section| section.starts_with(heading));
        let section = section.unwrap_or_else(|| panic!("{heading} is not documented"));
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut names: Vec<String> =
            rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect();
        names.sort();
        names
    }

    fn summary() -> Summary {
        Summary {
            rounds: 1,
            pages: 2,
            zero_pages: 0,
            dropped_pages: 0,
            bytes_wire: 0,
            freeze_ms: BTreeMap::from([("stop".to_owned(), 0.5)]),
            frozen_at_us: Some(1_795_369_223_021_260),
            downtime_ms: Some(3.25),
            lazy_faults: 0,
            lazy_fault_pages: 0,
            lazy_pushed_pages: 0,
            total_ms: 9.0,
            runs_on: RunsOn::Destination,
        }
    }

    fn feature() -> FeatureFound {
        FeatureFound {
            name: "x",
            since: "1.0",
            state: FeatureState::Missing,
            needed_for: vec!["send"],
            unless: Some("y"),
            loss: "x",
            why: Some("x".to_owned()),
            advice: None,
        }
    }

    /// One of each; a new one that is missing here does not compile.
    fn all() -> Vec<Event> {
        let text = || "x".to_owned();
        let first = Event::Phase { name: text() };
        let next = |event: &Event| match event {
            Event::Phase { .. } => Some(Event::Round {
                round: 1,
                pages: 2,
                bytes: 3,
                zero_pages: 4,
                dropped_pages: 5,
                duration_ms: 6.5,
                dirty_pages: 7,
                predicted_ms: 8.0,
            }),
            Event::Round { .. } => Some(Event::Note { text: text() }),
            Event::Note { .. } => {
                Some(Event::Refusal { object: text(), reason: text(), advice: text() })
            }
            Event::Refusal { .. } => {
                Some(Event::Failure { chain: vec![text()], runs_on: RunsOn::Source })
            }
            Event::Failure { .. } => Some(Event::Summary(summary())),
            Event::Summary(_) => {
                let directory = text();
                Some(Event::Dumped(DumpSummary {
                    directory,
                    rounds: 1,
                    memory_bytes: 2,
                    files: 3,
                    file_bytes: 4,
                    frozen_ms: 5.5,
                }))
            }
            Event::Dumped(_) => {
                let restored = RestoreSummary { pid: 1, elapsed_ms: 2.5, missing_pages: 3 };
                Some(Event::Restored(restored))
            }
            Event::Restored(_) => Some(Event::Feature(feature())),
            Event::Feature(_) => {
                let (send, receive) = (Says::Yes, Says::No);
                let (store, restore) = (Says::Yes, Says::Unknown);
                Some(Event::Verdict(HostVerdict { send, receive, store, restore }))
            }
            Event::Verdict(_) => None,
        };
        std::iter::successors(Some(first), next).collect()
    }

    #[test]
    fn what_is_documented_is_what_is_said() {
        let mut said = Vec::new();
        for event in all() {
            let value = serde_json::to_value(&event).unwrap();
            let object = value.as_object().unwrap();
            let name = object["event"].as_str().unwrap().to_owned();
            let mut fields: Vec<&str> = object.keys().map(String::as_str).collect();
            fields.retain(|field| *field != "event");
            fields.sort_unstable();
            assert_eq!(documented(&format!("`{name}`")), fields, "{name}");
            said.push(name);
        }
        let sections = DOCUMENTED.split("\n## `").skip(1);
        let mut headed: Vec<&str> = sections.filter_map(|s| Some(s.split_once('`')?.0)).collect();
        headed.retain(|name| *name != "runs_on" && !name.starts_with("migrate "));
        assert_eq!(headed, said);
    }

    #[test]
    fn every_place_to_run_is_documented() {
        let all = [RunsOn::Source, RunsOn::Destination, RunsOn::Nowhere, RunsOn::Unknown];
        let mut said: Vec<String> = all
            .iter()
            .map(|place| serde_json::to_value(place).unwrap().as_str().unwrap().to_owned())
            .collect();
        said.sort();
        assert_eq!(documented("`runs_on`"), said);
    }

    #[test]
    fn a_summary_has_its_fields_beside_its_name() {
        let event = Event::Summary(summary());
        let value: serde_json::Value = serde_json::from_str(&line(&event)).unwrap();
        assert_eq!(value["event"], "summary");
        assert_eq!(value["freeze_ms"]["stop"], 0.5);
        assert_eq!(value["frozen_at_us"], 1_795_369_223_021_260_u64);
        assert_eq!(value["runs_on"], "destination");
    }
}
