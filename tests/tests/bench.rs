//! The benchmark itself, on one small load: whatever it promises to measure is measured.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;
use tests::bench::{Profile, Results, page, text, wire_text};
use tests::place;

#[test]
fn every_column_of_a_small_load_is_filled() -> Result<()> {
    let out = tempfile::tempdir()?;
    let mut bench = Command::new(place::program("bench")?);
    let said = bench.args(["--quick", "--out", &place::text(out.path())?, "64-mib"]).output()?;
    let told = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "{told}");
    ensure!(told.contains("without a peer"), "it does not say that there is no peer: {told}");

    let results: Results = serde_json::from_slice(&fs::read(out.path().join("bench.json"))?)?;
    let [row] = results.rows.as_slice() else { anyhow::bail!("{} rows", results.rows.len()) };
    ensure!(row.ours.len() == 3 && row.peer.is_empty(), "{row:?}");
    for run in &row.ours {
        let memory = 64 << 20;
        ensure!(run.wire_bytes > memory && run.wire_bytes < 2 * memory, "{run:?}");
        ensure!(run.downtime_ms > 0.2 && run.downtime_ms < run.total_ms, "{run:?}");
        ensure!(run.in_freeze_ms.is_some_and(|ms| ms <= run.downtime_ms), "{run:?}");
        let steps: f64 = run.steps.iter().map(|step| step.ms).sum();
        ensure!(steps > 0.1 && steps < run.total_ms, "{run:?}");
        ensure!(run.source.cpu_ms > 0.0 && run.source.peak_kib > 1024, "{run:?}");
        ensure!(run.destination.cpu_ms > 0.0 && run.destination.peak_kib > 1024, "{run:?}");
        ensure!(run.slowed.is_some() && run.last_page_ms.is_some(), "{run:?}");
        ensure!(!run.rounds.is_empty() && run.wire.len() > 2, "{run:?}");
    }

    let table = String::from_utf8(said.stdout)?;
    ensure!(table == text(&results), "the table is not that of the results: {table}");
    let line = table.lines().nth(1).context("a line of the load")?;
    let cells: Vec<&str> =
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    // The first is the load, the second who moved it; a dash stands for what was not measured.
    ensure!(cells.len() == 15 && !cells.contains(&"–"), "{line}");
    ensure!(fs::read_to_string(out.path().join("bench.html"))? == page(&results), "another page");
    ensure!(fs::read_to_string(out.path().join("bench.md"))?.contains("64 MiB, idle"), "no table");
    Ok(())
}

#[test]
fn a_load_that_there_is_not_is_refused_with_those_that_there_are() -> Result<()> {
    let said = Command::new(place::program("bench")?).arg("no-such-load").output()?;
    let told = String::from_utf8_lossy(&said.stderr);
    ensure!(!said.status.success() && told.contains("64-mib, 1-gib"), "{told}");
    Ok(())
}

#[test]
fn every_column_of_the_wire_is_filled() -> Result<()> {
    let out = tempfile::tempdir()?;
    let mut wire = Command::new(place::program("wire")?);
    let small = ["--runs", "1", "--mib", "16", "--out", &place::text(out.path())?];
    let said = wire.args(small).args(["MTU 9000", "pages that come late"]).output()?;
    let told = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "{told}");

    let profile: Profile = serde_json::from_slice(&fs::read(out.path().join("wire.json"))?)?;
    let table = String::from_utf8(said.stdout)?;
    ensure!(table == wire_text(&profile), "the table is not that of the results: {table}");
    let lines = || table.lines().filter(|line| line.starts_with("MTU "));
    for (cells, shown) in [(8, "MTU 9000"), (6, "MTU 1500")] {
        let line = lines().find(|line| line.starts_with(shown)).context("a line")?;
        let filled = line.split("  ").filter(|cell| !cell.trim().is_empty()).count();
        ensure!(filled == cells, "{line}");
    }
    // A dash by itself stands for what was not measured.
    let has_gaps = lines().any(|line| line.split_whitespace().any(|word| word == "–"));
    ensure!(lines().count() == 7 && !has_gaps, "{table}");
    for what in ["plain TCP", "the bare link", "of noise, none", "of objects, zstd"] {
        ensure!(table.contains(what), "no {what}: {table}");
    }
    ensure!(fs::read_to_string(out.path().join("wire.md"))?.contains("| MTU 9000 | plain TCP |"));
    Ok(())
}

#[test]
fn what_the_wire_does_not_have_is_not_measured() -> Result<()> {
    let out = tempfile::tempdir()?;
    let mut wire = Command::new(place::program("wire")?);
    let said = wire.args(["--out", &place::text(out.path())?, "no such words"]).output()?;
    let told = String::from_utf8_lossy(&said.stderr);
    ensure!(!said.status.success() && told.contains("MTU 1500: plain TCP"), "{told}");
    Ok(())
}
