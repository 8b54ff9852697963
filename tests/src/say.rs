//! What a test says besides passing or failing: what it could not try here, and what it measured.
//!
//! A runner hides what passing tests print, so both also go into files that `cargo xtask test` names
//! in the environment and prints at its end. What is skipped is not counted as passed there.

use std::fs::OpenOptions;
use std::io::{self, Write};

/// The environment variables that name the files.
pub const SKIPS_FILE: &str = "MIGRATE_TEST_SKIPS";
pub const FIGURES_FILE: &str = "MIGRATE_TEST_FIGURES";

/// Says that the test `name` is not run, and why. The test returns right after it.
pub fn skip(name: &str, reason: &str) -> io::Result<()> {
    record("SKIPPED", SKIPS_FILE, name, reason)
}

/// Says what was measured, with its unit.
pub fn figure(name: &str, value: &str) -> io::Result<()> {
    record("MEASURED", FIGURES_FILE, name, value)
}

fn record(verb: &str, variable: &str, name: &str, text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{verb} {name}: {text}")?;
    let Some(path) = std::env::var_os(variable) else { return Ok(()) };
    // One write in append mode: tests of several processes write here at once.
    let line = format!("{name}: {text}\n");
    OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
}
