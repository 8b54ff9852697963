//! `soak [MINUTES [SEED]]`: programs go to and fro under random faults; the last line counts.

use anyhow::Result;
use std::io::{Write, stdout};
use std::time::Duration;
use tests::soak::soak;

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let minutes = numbers.next().transpose()?.unwrap_or(10);
    let seed = numbers.next().transpose()?.unwrap_or_else(|| u64::from(std::process::id()));
    writeln!(stdout(), "seed {seed}")?;
    let soaked = soak(Duration::from_secs(minutes * 60), seed, |line| {
        // Nobody listens any more: it goes on all the same.
        let _ = writeln!(stdout(), "{line}");
    })?;
    let tests::soak::Soaked { moves, faults, arrived } = soaked;
    writeln!(stdout(), "{moves} moves, {faults} faults, {arrived} arrived, 0 violations")?;
    Ok(())
}
