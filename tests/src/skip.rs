//! What a test could not try on this machine, said out loud.
//!
//! A test without its prerequisite returns early, and the test runner counts it as passed. So the
//! reason also goes into the file that `cargo xtask test` names in the environment, and that
//! command's summary counts it as skipped.

use std::fs::OpenOptions;
use std::io::{self, Write};

/// The environment variable that names the file of reasons.
pub const REASONS_FILE: &str = "MIGRATE_TEST_SKIPS";

/// Says that (part of) the test `name` is not run, and why.
pub fn skip(name: &str, reason: &str) -> io::Result<()> {
    writeln!(io::stderr(), "SKIPPED {name}: {reason}")?;
    let Some(path) = std::env::var_os(REASONS_FILE) else { return Ok(()) };
    // One write in append mode: tests of several processes write here at once.
    let line = format!("{name}: {reason}\n");
    OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
}
