//! The fuzz targets of `tests/fuzz`, each for a while.
//!
//! They need a nightly toolchain (a sanitizer is not in the stable one) and cargo-fuzz, which is
//! installed below `target/`. What is missing is said, and nothing else is held up for it.

use crate::command::{self, cargo, run, say};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::Command;

const DIRECTORY: &str = "tests/fuzz";
const TOOLS: &str = "target/tools";
/// How long each target runs; MIGRATE_FUZZ_SECONDS says otherwise.
const SECONDS: u64 = 60;
/// No input may make a parser hold more, or take longer.
const MEMORY_MIB_MAX: &str = "-rss_limit_mb=1024";
const ALLOCATION_MIB_MAX: &str = "-malloc_limit_mb=128";
const INPUT_SECONDS_MAX: &str = "-timeout=10";

pub(crate) fn run_all() -> Result<()> {
    if !command::succeeds("rustc", &["+nightly", "--version"]) {
        return say(
            "SKIPPED the fuzz targets: there is no nightly toolchain (rustup toolchain install nightly)",
        );
    }
    if let Err(error) = install() {
        return say(&format!(
            "SKIPPED the fuzz targets: cargo-fuzz cannot be installed: {error:#}"
        ));
    }
    run(&mut cargo_fuzz("build"))?;
    targets()?.iter().try_for_each(|target| run_one(target, seconds()?))
}

fn install() -> Result<()> {
    let program = format!("{TOOLS}/bin/cargo-fuzz");
    if command::succeeds(&program, &["--version"]) {
        return Ok(());
    }
    run(&mut cargo(&["install", "cargo-fuzz", "--locked", "--root", TOOLS]))
}

fn seconds() -> Result<u64> {
    match std::env::var("MIGRATE_FUZZ_SECONDS") {
        Ok(text) => text.parse().context("MIGRATE_FUZZ_SECONDS is no number"),
        Err(_) => Ok(SECONDS),
    }
}

/// The files beside each other are the list: one that is forgotten in Cargo.toml does not build.
fn targets() -> Result<Vec<String>> {
    let files = std::fs::read_dir(Path::new(DIRECTORY).join("targets"))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    ensure!(!names.is_empty(), "there are no fuzz targets");
    Ok(names)
}

/// What is found goes below `target/`; the seeds of `seeds/` are only read.
fn run_one(target: &str, seconds: u64) -> Result<()> {
    let corpus = format!("target/fuzz-corpus/{target}");
    std::fs::create_dir_all(&corpus).with_context(|| format!("make {corpus}"))?;
    let mut command = cargo_fuzz("run");
    command.arg(target).arg(&corpus).arg(format!("{DIRECTORY}/seeds/{target}")).arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    run(command.args([MEMORY_MIB_MAX, ALLOCATION_MIB_MAX, INPUT_SECONDS_MAX]))
}

fn cargo_fuzz(task: &str) -> Command {
    let mut command = Command::new(format!("{TOOLS}/bin/cargo-fuzz"));
    // As cargo itself would call it; the toolchain is chosen by rustup.
    command.args(["fuzz", task, "--fuzz-dir", DIRECTORY]).env("RUSTUP_TOOLCHAIN", "nightly");
    command.env_remove("CARGO").env_remove("RUSTC");
    command
}
