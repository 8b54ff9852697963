//! The results as tables: for a terminal, and in Markdown.

use super::results::{Results, Row, steps};
use super::run::Run;
use super::spread::{Spread, short};
use std::iter;

/// What stands in every line, in this order.
pub(super) const COLUMNS: [&str; 13] = [
    "downtime ms",
    "the machine's ms",
    "of its steps ms",
    "total ms",
    "on the wire MiB",
    "CPU ms source",
    "CPU ms dest.",
    "CPU s/GiB source",
    "CPU s/GiB dest.",
    "peak MiB source",
    "peak MiB dest.",
    "slow-down %",
    "last page ms",
];

/// Where there is nothing to measure.
const NOTHING: &str = "–";

/// None where there is nothing.
pub(super) fn spreads(runs: &[Run]) -> [Option<Spread>; 13] {
    let of = |value: &dyn Fn(&Run) -> Option<f64>| Spread::of(runs.iter().filter_map(value));
    [
        of(&|run| Some(run.downtime_ms)),
        of(&|run| Some(run.machine_ms)),
        of(&|run| Some(run.steps.iter().map(|step| step.ms).sum())),
        of(&|run| Some(run.total_ms)),
        of(&|run| Some(mib(run.wire_bytes))),
        of(&|run| Some(run.source.cpu_ms)),
        of(&|run| Some(run.destination.cpu_ms)),
        of(&|run| per_gib(run.source.cpu_ms, run)),
        of(&|run| per_gib(run.destination.cpu_ms, run)),
        of(&|run| Some(mib(run.source.peak_kib << 10))),
        of(&|run| Some(mib(run.destination.peak_kib << 10))),
        of(&|run| Some(run.slowed?.percent())),
        of(&|run| run.last_page_ms),
    ]
}

/// Seconds for each GiB on the wire. None of a move that costs other things than bytes.
fn per_gib(cpu_ms: f64, run: &Run) -> Option<f64> {
    const LEAST_MIB: f64 = 32.0;
    let sent = mib(run.wire_bytes);
    (sent >= LEAST_MIB).then(|| cpu_ms / 1e3 / (sent / 1024.0))
}

fn mib(bytes: u64) -> f64 {
    super::cost::mib(bytes)
}

/// Who, and its runs, for each of a row that has any.
pub(super) fn sides(row: &Row) -> impl Iterator<Item = (&'static str, &[Run])> {
    let all = [("migrate", row.ours.as_slice()), ("CRIU", row.peer.as_slice())];
    all.into_iter().filter(|(_, runs)| !runs.is_empty())
}

/// The downtime with its spread, and the medians of the rest: what fits into a terminal.
pub fn text(results: &Results) -> String {
    let head = ["load", "by"].into_iter().chain(COLUMNS).map(str::to_owned).collect();
    let mut lines: Vec<Vec<String>> = vec![head];
    for row in &results.rows {
        for (who, runs) in sides(row) {
            let cells =
                spreads(runs).into_iter().enumerate().map(|(column, spread)| match spread {
                    None => NOTHING.into(),
                    Some(spread) if column == 0 => spread.shown(),
                    Some(spread) => short(spread.median),
                });
            lines.push([row.name.clone(), who.into()].into_iter().chain(cells).collect());
        }
    }
    aligned(&lines) + &floor(results) + &failures(results)
}

pub(super) fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max().unwrap_or(0)
    };
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

/// Every cell with its spread, and what it was measured on.
pub fn markdown(results: &Results) -> String {
    let head = format!("| load | by | {} |\n", COLUMNS.join(" | "));
    let rule = format!("|---|---|{}\n", "---|".repeat(COLUMNS.len()));
    let lines = results.rows.iter().flat_map(|row| sides(row).map(move |side| (row, side)));
    let lines = lines.map(|(row, (who, runs))| {
        let cells =
            spreads(runs).map(|spread| spread.map_or_else(|| NOTHING.into(), Spread::shown));
        format!("| {} | {who} | {} |\n", row.title, cells.join(" | "))
    });
    let lines: String = lines.collect();
    let parts =
        [head, rule, lines, "\n".into(), floor(results), failures(results), step_table(results)];
    format!("{}\n\n{}", measured_on(results), parts.concat())
}

/// In one paragraph.
pub(super) fn measured_on(results: &Results) -> String {
    let peer = results.peer.as_deref().unwrap_or("no peer");
    format!("{} runs of each, with {peer}; {}", results.runs, results.machine.in_words())
}

pub(super) fn floor(results: &Results) -> String {
    let floor = &results.floor;
    format!(
        "The floor: one TCP connection carries {} MiB/s, a byte and its answer take {} us, \
         process_vm_readv(2) reads {} MiB/s.\n",
        floor.tcp_mib_s.shown(),
        floor.round_trip_us.shown(),
        floor.read_mib_s.shown()
    )
}

/// A line each, with its load.
pub(super) fn failures(results: &Results) -> String {
    let lines = results.rows.iter().flat_map(|row| iter::repeat(row).zip(&row.failures));
    lines.map(|(row, failure)| format!("- {}: {failure}\n", row.name)).collect()
}

/// What a freeze is made of, for each load.
fn step_table(results: &Results) -> String {
    let lines = results.rows.iter().flat_map(|row| sides(row).map(move |side| (row, side)));
    let line = |(row, (who, runs)): (&Row, (&str, &[Run]))| {
        let steps = steps(runs).into_iter().filter(|(_, spread)| spread.median >= LEAST_MS);
        let steps: Vec<String> =
            steps.map(|(name, spread)| format!("{name} {}", short(spread.median))).collect();
        format!("| {} | {who} | {} |\n", row.title, steps.join(", "))
    };
    let lines: String = lines.map(line).collect();
    format!("\n| load | by | steps of the freeze, median ms |\n|---|---|---|\n{lines}")
}

/// Shorter steps are not worth a word.
const LEAST_MS: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn a_line_has_every_column_and_a_dash_where_there_is_nothing() {
        let said = text(&results());
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("load    by       downtime ms"), "{said}");
        let cells: Vec<&str> = lines[1].split("  ").filter(|cell| !cell.is_empty()).collect();
        let expected = [
            "64-mib",
            "migrate",
            "8.00 (7.00–9.00)",
            "1.50",
            "8.00",
            "1500",
            "512",
            "500",
            "250",
            "1.00",
            "0.50",
            "20.0",
            "20.0",
            "10.0",
            "250",
        ];
        assert_eq!(cells.iter().map(|cell| cell.trim()).collect::<Vec<_>>(), expected);
        assert!(lines[2].contains("CRIU") && lines[2].ends_with(NOTHING), "{said}");
        assert!(
            lines[3].contains("1000 (900–1100) MiB/s") && lines[4].contains("criu, run 2"),
            "{said}"
        );
    }

    #[test]
    fn markdown_has_the_machine_the_floor_and_the_steps() {
        let said = markdown(&results());
        assert!(said.starts_with("3 runs of each, with CRIU 4.1;"), "{said}");
        assert!(
            said.contains("| 64 MiB, idle | migrate | 8.00 (7.00–9.00) | 1.50 (1.50–1.50) | 8.00 (7.00–9.00) |"),
            "{said}"
        );
        assert!(said.contains("build and wire 7.00, stop 1.00 |"), "{said}");
        let columns = said.lines().find(|line| line.starts_with("|---|---|---|---")).unwrap();
        assert_eq!(columns.matches("---").count(), COLUMNS.len() + 2);
    }

    #[test]
    fn runs_of_nobody_have_no_line() {
        let mut results = results();
        results.rows[0].ours.clear();
        assert!(!text(&results).contains("migrate"));
    }
}
