//! How long a program waits for a page that comes after it, while the push of all others runs.

use super::super::floor::round_trip_us;
use super::super::spread::Spread;
use super::stream::{is_whole, take_memory};
use super::{WirePlan, in_one_line};
use crate::hosts::{Started, TwoHosts};
use crate::wait;
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;

pub(super) const NAME: &str = "pages that come late";

/// Of every run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Late {
    /// One byte and its answer over plain TCP, with nothing else on the link.
    pub round_trip_us: Vec<f64>,
    pub runs: Vec<Waits>,
    pub failures: Vec<String>,
}

/// What one program has waited for its pages, by its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    pub count: usize,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// From the first to the last.
    pub span_ms: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Wait {
    waited_ns: f64,
    at_us: f64,
}

impl Late {
    pub(super) fn measure(plan: &WirePlan, tell: &impl Fn(&str)) -> Self {
        let mut late = Self::default();
        for number in 1..=plan.runs {
            let which = format!("{NAME}, run {number}");
            match late.take(plan.mib) {
                Ok(waits) => tell(&format!("{which}: {:.0} us at the median", waits.p50_us)),
                Err(error) => {
                    let failure = in_one_line(&which, &error);
                    tell(&failure);
                    late.failures.push(failure);
                }
            }
        }
        late
    }

    fn take(&mut self, mib: u32) -> Result<Waits> {
        let hosts = TwoHosts::with_agents()?;
        self.round_trip_us.push(round_trip_us(&hosts)?);
        let waits = Waits::of(&run(&hosts, mib)?).context("a page that came late")?;
        self.runs.push(waits);
        Ok(waits)
    }

    pub(super) fn spread(&self, of: impl Fn(&Waits) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(of))
    }
}

fn run(hosts: &TwoHosts, mib: u32) -> Result<Vec<Wait>> {
    let program = Workload::start(&hosts.a, "memory", &[&mib.to_string(), "noise"])?;
    take_memory(mib);
    let options = ["--lazy", "always"];
    let command = hosts.start_migrate(program.pid, &hosts.a, hosts.b.name(), &options)?;
    wait::until(wait::PATIENCE, || "the push".into(), || Ok(pushes(&command)?.then_some(())))?;
    hosts.b.signal(program.pid, Signal::SIGUSR1)?;
    let moved = hosts.finish_migrate(&hosts.a, &command)?.success()?;
    let waits = waits(&program.said()?);
    let answered = moved.summary()?["lazy_faults"].as_u64().context("faults in the summary")?;
    ensure!(answered >= waits.len() as u64 / 2, "{answered} faults were answered");
    is_whole(hosts, &program)?;
    Ok(waits)
}

fn pushes(command: &Started) -> Result<bool> {
    let said = fs::read_to_string(&command.stdout)?;
    let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(events.into_iter().any(|event| event["event"] == "phase" && event["name"] == "lazy"))
}

fn waits(said: &str) -> Vec<Wait> {
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

impl Waits {
    /// None of none.
    fn of(waits: &[Wait]) -> Option<Self> {
        let mut us: Vec<f64> = waits.iter().map(|wait| wait.waited_ns / 1e3).collect();
        us.sort_by(f64::total_cmp);
        let quantile = |percent: usize| us.get((us.len() * percent / 100).min(us.len() - 1));
        Some(Self {
            count: us.len(),
            max_us: *us.last()?,
            p50_us: *quantile(50)?,
            p99_us: *quantile(99)?,
            span_ms: (waits.last()?.at_us - waits.first()?.at_us) / 1e3,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_of_what_was_waited() {
        let said: Vec<String> = (1..=200)
            .rev()
            .map(|n| format!("{{\"waited_ns\":{},\"at_us\":{}}}", n * 1000, 1000 * (300 - n)))
            .collect();
        let found = Waits::of(&waits(&format!("ready\n{}\n", said.join("\n")))).unwrap();
        let expected =
            Waits { count: 200, p50_us: 101.0, p99_us: 199.0, max_us: 200.0, span_ms: 199.0 };
        assert_eq!(found, expected);
        assert_eq!(Waits::of(&[]), None);
    }
}
