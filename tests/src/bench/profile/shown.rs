//! The profile as tables: for a terminal, and in Markdown.

use super::super::spread::Spread;
use super::super::table;
use super::row::{Carrier, Row};
use super::{Late, Profile};

const COLUMNS: [&str; 8] = [
    "link",
    "what",
    "memory MiB/s",
    "on the wire MiB/s",
    "of plain TCP %",
    "of the bare link %",
    "CPU s/GiB source",
    "CPU s/GiB dest.",
];

const LATE_COLUMNS: [&str; 6] =
    ["", "pages waited for", "p50 us", "p99 us", "most us", "round trip us"];

/// For a row with no good run, and for what there is nothing of to tell it by.
const NOTHING: &str = "–";

fn shown(spread: Option<Spread>) -> String {
    spread.map_or_else(|| NOTHING.into(), Spread::shown)
}

fn cells(profile: &Profile, row: &Row) -> [String; 8] {
    let of = |carrier| percent_of(profile, row, carrier);
    [
        row.road.name(),
        row.carrier.name(),
        shown(row.spread(super::row::Carried::rate)),
        shown(row.spread(super::row::Carried::wire_rate)),
        of(Carrier::Tcp),
        of(Carrier::Link),
        shown(row.spread(|run| run.per_gib(run.source))),
        shown(row.spread(|run| run.per_gib(run.destination))),
    ]
}

/// Of memory, by medians.
fn percent_of(profile: &Profile, row: &Row, carrier: Carrier) -> String {
    let median = |row: &Row| Some(row.spread(super::row::Carried::rate)?.median);
    let mut all = profile.rows.iter();
    let other = all.find(|other| other.road == row.road && other.carrier == carrier);
    let percent = || Some(median(row)? / median(other?)? * 100.0);
    percent().map_or_else(|| NOTHING.into(), |percent| format!("{percent:.0}"))
}

fn late_cells(late: &Late) -> [String; 6] {
    [
        "MTU 1500".into(),
        #[expect(clippy::cast_precision_loss, reason = "thousands of them")]
        shown(late.spread(|waits| waits.count as f64)),
        shown(late.spread(|waits| waits.p50_us)),
        shown(late.spread(|waits| waits.p99_us)),
        shown(late.spread(|waits| waits.max_us)),
        shown(Spread::of(late.round_trip_us.iter().copied())),
    ]
}

pub fn text(profile: &Profile) -> String {
    let lines = profile.rows.iter().map(|row| cells(profile, row));
    let lines = [COLUMNS.map(str::to_owned)].into_iter().chain(lines);
    let lines: Vec<Vec<String>> = lines.map(|line| line.to_vec()).collect();
    let late = [LATE_COLUMNS.map(str::to_owned), late_cells(&profile.late)];
    let late: Vec<Vec<String>> = late.iter().map(|line| line.to_vec()).collect();
    let tables = [table::aligned(&lines), table::aligned(&late)];
    tables.join("\n") + &failures(profile)
}

pub fn markdown(profile: &Profile) -> String {
    let lines: Vec<[String; 8]> = profile.rows.iter().map(|row| cells(profile, row)).collect();
    let tables = [
        ruled(&COLUMNS, lines.iter().map(<[String; 8]>::as_slice)),
        ruled(&LATE_COLUMNS, [late_cells(&profile.late).as_slice()].into_iter()),
    ];
    let measured_on = format!("{} runs of each; {}", profile.runs, profile.machine.in_words());
    format!("{measured_on}\n\n{}{}", tables.join("\n"), failures(profile))
}

fn ruled<'a>(columns: &[&str], lines: impl Iterator<Item = &'a [String]>) -> String {
    let head = format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    let lines: String = lines.map(|cells| format!("| {} |\n", cells.join(" | "))).collect();
    head + &lines
}

fn failures(profile: &Profile) -> String {
    profile.failures().map(|failure| format!("- {failure}\n")).collect()
}
