//! All that was measured, as it goes into the JSON.

use super::Plan;
use super::floor::Floor;
use super::load::Load;
use super::machine::Machine;
use super::run::{Run, Step};
use super::spread::Spread;
use anyhow::Result;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub floor: Floor,
    pub runs: u32,
    /// Its version; None when there is none.
    pub peer: Option<String>,
    pub rows: Vec<Row>,
}

impl Results {
    pub(super) fn new(plan: &Plan, floor: Floor) -> Result<Self> {
        let peer = plan.peer.as_ref().map(|criu| format!("CRIU {}", criu.version));
        let machine = Machine::look()?;
        Ok(Self { machine, floor, runs: plan.runs, peer, rows: Vec::new() })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub title: String,
    pub ours: Vec<Run>,
    pub peer: Vec<Run>,
    /// Of either, and why it was left out.
    pub failures: Vec<String>,
}

impl Row {
    pub(super) fn new(load: &Load) -> Self {
        let (name, title) = (load.name.into(), load.title.into());
        Self { name, title, ours: Vec::new(), peer: Vec::new(), failures: Vec::new() }
    }

    pub(super) fn take(
        &mut self,
        run: Result<Run, String>,
        of: impl Fn(&mut Self) -> &mut Vec<Run>,
    ) {
        match run {
            Ok(run) => of(self).push(run),
            Err(failure) => self.failures.push(failure),
        }
    }
}

/// The run in the middle by its downtime, for plots: what is drawn has happened.
pub(super) fn typical(runs: &[Run]) -> Option<&Run> {
    let mut sorted: Vec<&Run> = runs.iter().collect();
    sorted.sort_by(|one, other| one.downtime_ms.total_cmp(&other.downtime_ms));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Each step of the freeze, the longest first.
pub(super) fn steps(runs: &[Run]) -> Vec<(String, Spread)> {
    let mut names: Vec<&String> = Vec::new();
    for step in runs.iter().flat_map(|run| &run.steps) {
        if !names.contains(&&step.name) {
            names.push(&step.name);
        }
    }
    let ms = |name: &String| {
        let own = |run: &Run| run.steps.iter().filter(|step| step.name == *name).map(ms_of).sum();
        Spread::of(runs.iter().map(own))
    };
    let mut spreads: Vec<(String, Spread)> =
        names.into_iter().filter_map(|name| Some((name.clone(), ms(name)?))).collect();
    spreads.sort_by(|one, other| other.1.median.total_cmp(&one.1.median));
    spreads
}

fn ms_of(step: &Step) -> f64 {
    step.ms
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::cost::Cost;
    use crate::bench::rate::Slowed;
    use crate::bench::run::Round;
    use crate::bench::wire::Sample;

    pub(in crate::bench) fn run(downtime_ms: f64) -> Run {
        let step = |name: &str, ms| Step { name: name.into(), ms };
        let cost = Cost { cpu_ms: 500.0, peak_kib: 20 * 1024 };
        let sample = |at_ms, bytes| Sample { at_ms, bytes };
        Run {
            downtime_ms,
            in_freeze_ms: Some(downtime_ms),
            before_freeze_ms: Some(0.0),
            machine_ms: 1.5,
            steps: vec![step("stop", 1.0), step("build and wire", downtime_ms - 1.0)],
            total_ms: 1500.0,
            last_page_ms: Some(250.0),
            wire_bytes: 512 << 20,
            source: cost,
            destination: Cost { cpu_ms: 250.0, ..cost },
            slowed: Some(Slowed { before: 1000.0, meanwhile: 900.0 }),
            rounds: vec![Round {
                bytes: 1 << 29,
                duration_ms: 900.0,
                dirty_pages: 70,
                predicted_ms: 3.0,
            }],
            wire: vec![sample(0.0, 0), sample(1000.0, 1 << 29)],
            frozen_at_ms: 1000.0,
        }
    }

    pub(in crate::bench) fn results() -> Results {
        let spread = Spread { median: 1000.0, min: 900.0, max: 1100.0 };
        let load = &crate::bench::LOADS[1];
        let mut row = Row::new(load);
        row.ours = [9.0, 7.0, 8.0].map(run).to_vec();
        row.peer =
            [Run { slowed: None, last_page_ms: None, rounds: Vec::new(), ..run(300.0) }].to_vec();
        row.failures = vec!["criu, run 2: it said <no>".into()];
        let floor = Floor { tcp_mib_s: spread, round_trip_us: spread, read_mib_s: spread };
        Results {
            machine: Machine::look().unwrap(),
            floor,
            runs: 3,
            peer: Some("CRIU 4.1".into()),
            rows: vec![row],
        }
    }

    #[test]
    fn the_typical_run_is_the_one_in_the_middle() {
        let results = results();
        let middle = typical(&results.rows[0].ours).unwrap();
        assert!((middle.downtime_ms - 8.0).abs() < 1e-9);
        assert!(typical(&[]).is_none());
    }

    #[test]
    fn steps_are_medians_over_all_runs() {
        let steps = steps(&results().rows[0].ours);
        assert_eq!(steps[0].0, "build and wire");
        assert_eq!(steps[0].1, Spread { median: 7.0, min: 6.0, max: 8.0 });
    }

    #[test]
    fn results_survive_their_json() {
        let before = serde_json::to_value(results()).unwrap();
        let after: Results = serde_json::from_value(before.clone()).unwrap();
        assert_eq!(serde_json::to_value(after).unwrap(), before);
    }
}
