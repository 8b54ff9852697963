//! The whole matrix of faults, or a part of it. Ends with the line `N cells, M violations`.

use anyhow::{Error, Result, ensure};
use clap::Parser;
use std::io::{Write, stdout};
use tests::faults::{Cell, cells, run_all};

#[derive(Parser)]
#[command(about = "Every fault at every step of a move, and what is left of the tree afterwards")]
struct Arguments {
    /// Only a representative part, the one that is among the tests
    #[arg(long)]
    quick: bool,
    /// Only say which cells there are
    #[arg(long)]
    list: bool,
    /// Only cells whose name contains one of these
    names: Vec<String>,
}

fn main() -> Result<()> {
    let Arguments { quick, list, names } = Arguments::parse();
    let mut cells = cells(quick);
    cells.retain(|cell| names.is_empty() || names.iter().any(|n| cell.to_string().contains(n)));
    ensure!(!cells.is_empty(), "no cell has such a name");
    if list {
        return cells.iter().try_for_each(|cell| Ok(writeln!(stdout(), "{cell}")?));
    }
    let violations = run_all(&cells, tell)?.len();
    writeln!(stdout(), "{} cells, {violations} violations", cells.len())?;
    ensure!(violations == 0, "the promise was broken");
    Ok(())
}

fn tell(cell: &Cell, violation: Option<&Error>) {
    // Nobody listens any more: the matrix goes on all the same.
    let _ = match violation {
        None => writeln!(stdout(), "ok         {cell}"),
        Some(error) => writeln!(stdout(), "VIOLATION  {error:?}"),
    };
}
