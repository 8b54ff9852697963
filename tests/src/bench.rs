//! The benchmark: each of the [`LOADS`] moves between two hosts on this machine, again and again, by us and,
//! if it is there, by a peer: CRIU, as a program. Their runs alternate, on the same programs.
//!
//! Every run has hosts of its own. Its downtime is what the program itself sees: the longest gap of its
//! heartbeat, or the longest that a client of it waits. What a run has measured is a [`Run`]; what the link and
//! the memory would allow stands beside the runs as the [`Floor`]. [`Results`] are what all of it comes to,
//! as a table, as JSON and as a page with plots.

mod cost;
mod criu;
mod floor;
mod link;
mod load;
mod machine;
mod ours;
mod page;
mod plot;
mod profile;
mod rate;
mod results;
mod run;
mod spread;
mod subject;
mod table;
mod wire;

pub use cost::measure;
pub use criu::Criu;
pub use floor::Floor;
pub use link::{echo, flood, ping, receive_files, send_files, sink};
pub use load::{LOADS, Load};
pub use page::page;
pub use profile::{
    Profile, WirePlan, keep_to_half, link_flood, link_sink, profile, wire_markdown, wire_text,
};
pub use results::{Results, Row};
pub use run::Run;
pub use spread::Spread;
pub use table::{markdown, text};

use anyhow::Result;

/// What is to be measured.
#[derive(Debug)]
pub struct Plan {
    pub runs: u32,
    pub loads: Vec<&'static Load>,
    pub peer: Option<Criu>,
}

/// `tell` hears what is being done, and `keep` all that there is after every load: whoever ends the benchmark
/// early has the part that was measured.
pub fn bench(
    plan: &Plan,
    tell: impl Fn(&str),
    mut keep: impl FnMut(&Results) -> Result<()>,
) -> Result<Results> {
    tell("the floor: plain TCP, one round trip, reading another process");
    let mut results = Results::new(plan, Floor::measure(plan.runs)?)?;
    for load in &plan.loads {
        let row = measure_load(load, plan, &tell);
        results.rows.push(row);
        results.machine.look_at_load()?;
        keep(&results)?;
    }
    Ok(results)
}

/// What fails is part of the result.
fn measure_load(load: &Load, plan: &Plan, tell: &impl Fn(&str)) -> Row {
    let tell = |line: &str| tell(&format!("{}: {line}", load.name));
    let mut row = Row::new(load);
    if let Some(reason) = machine::lacks_memory_for(load, plan.peer.is_some()) {
        tell(&format!("left out: {reason}"));
        row.failures.push(reason);
        return row;
    }
    for number in 1..=plan.runs {
        let run = noted(ours::run(load), &format!("migrate, run {number}"), &tell);
        row.take(run, |row| &mut row.ours);
        let Some(criu) = &plan.peer else { continue };
        let run = noted(criu.run(load), &format!("criu, run {number}"), &tell);
        row.take(run, |row| &mut row.peer);
    }
    row
}

fn noted(run: Result<Run>, which: &str, tell: &impl Fn(&str)) -> Result<Run, String> {
    let run = run.map_err(|error| in_one_line(which, &error));
    match &run {
        Ok(Run { downtime_ms, in_freeze_ms, before_freeze_ms, total_ms, .. }) => {
            let part =
                |ms: &Option<f64>, which| ms.map(|ms| format!(", {ms:.1} {which} the freeze"));
            let parts = [part(before_freeze_ms, "before"), part(in_freeze_ms, "in")];
            let parts: String = parts.into_iter().flatten().collect();
            tell(&format!("{which}: {downtime_ms:.1} ms{parts}, of {total_ms:.0} ms"));
        }
        Err(failure) => tell(failure),
    }
    run
}

/// What failed, and why.
fn in_one_line(which: &str, error: &anyhow::Error) -> String {
    format!("{which}: {error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}
