//! The quick part of the matrix of faults; `cargo xtask faults` runs all of it.

use anyhow::{Result, ensure};
use tests::faults::{Cell, Reach, cells, run_all};

fn hold_true(wanted: impl Fn(&Cell) -> bool) -> Result<()> {
    let cells: Vec<Cell> = cells(true).into_iter().filter(|cell| wanted(cell)).collect();
    ensure!(!cells.is_empty(), "no cells");
    let violations = run_all(&cells, |_, _| {})?;
    let told: Vec<String> = violations.iter().map(|error| format!("{error:?}")).collect();
    ensure!(told.is_empty(), "{}", told.join("\n\n"));
    Ok(())
}

fn copying(side: &str) -> Result<()> {
    hold_true(|cell| cell.step.reach == Reach::Copying && cell.step.name.starts_with(side))
}

#[test]
fn what_fails_at_the_source_before_the_handover_leaves_the_tree_there() -> Result<()> {
    copying("source.")
}

#[test]
fn what_fails_at_the_destination_before_the_handover_leaves_the_tree_at_the_source() -> Result<()> {
    copying("destination.")
}

#[test]
fn what_fails_in_the_handover_leaves_exactly_one_copy() -> Result<()> {
    hold_true(|cell| cell.step.reach == Reach::Handover)
}

#[test]
fn what_fails_after_the_handover_leaves_the_tree_at_the_destination_with_all_its_pages()
-> Result<()> {
    hold_true(|cell| cell.step.reach == Reach::Lazy)
}
