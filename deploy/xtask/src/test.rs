//! Every test, with whichever runner there is, and one summary of what ran, what did not and why.

use crate::command::{cargo, run as run_command, say, show};
use crate::install;
use crate::summary::Counts;
use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// The summary is the last thing said, so failed tests are an exit code and not an error.
pub(crate) fn run(filter: Option<&str>, long: bool) -> Result<ExitCode> {
    install::for_scenarios()?;
    run_command(&mut cargo(&["build", "--workspace", "--bins"]))?;
    let started = Instant::now();
    let said = Said::new()?;
    let mut counts = Counts::default();
    let mut is_good = true;
    for mut command in runs(filter)? {
        said.tell(&mut command, long);
        let (more, is_success) = count(&mut command)?;
        counts += more;
        is_good &= is_success;
    }
    let skips = said.show()?;
    let counts = counts.with_skips(skips);
    say(&counts.closing(started.elapsed()))?;
    // Nothing ran: it did not build, or the filter is mistyped.
    let has_run = counts.passed + counts.skipped > 0;
    Ok(if is_good && has_run && counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The files in which tests say what they skipped and measured.
struct Said {
    skips: PathBuf,
    figures: PathBuf,
}

impl Said {
    fn new() -> Result<Self> {
        let directory = std::env::current_dir()?.join("target/xtask");
        fs::create_dir_all(&directory).context("make target/xtask")?;
        let (skips, figures) = (directory.join("skips"), directory.join("figures"));
        fs::write(&skips, "")?;
        fs::write(&figures, "")?;
        Ok(Self { skips, figures })
    }

    fn tell(&self, command: &mut Command, long: bool) {
        command.env("MIGRATE_TEST_SKIPS", &self.skips).env("MIGRATE_TEST_FIGURES", &self.figures);
        if long {
            command.env("MIGRATE_TEST_LONG", "1");
        }
    }

    /// Prints both, and returns how many tests were skipped.
    fn show(&self) -> Result<u64> {
        for line in fs::read_to_string(&self.figures)?.lines() {
            say(&format!("measured  {line}"))?;
        }
        let skips = fs::read_to_string(&self.skips)?;
        for line in skips.lines() {
            say(&format!("skipped   {line}"))?;
        }
        Ok(skips.lines().count() as u64)
    }
}

/// nextest where it is installed: it ends hung tests. Its settings stand in `.config/nextest.toml`.
fn runs(filter: Option<&str>) -> Result<Vec<Command>> {
    let has_nextest = cargo(&["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if has_nextest {
        let mut nextest = cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
        // A filter may fit no test of nextest's and still fit one of the documentation.
        nextest.args(["--no-tests", "pass"]).args(filter);
        return Ok(vec![nextest, documentation(filter)]);
    }
    plain_runs(filter)
}

fn documentation(filter: Option<&str>) -> Command {
    let mut doc = cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]);
    doc.args(filter);
    doc
}

/// The scenarios that fill memory or measure time run one by one, and those that make many hosts or
/// look at all that are there; the others two at a time.
const ALONE: &[&str] = &["bench", "bulk", "downtime", "faults", "hosts", "kernels", "real", "web"];

fn plain_runs(filter: Option<&str>) -> Result<Vec<Command>> {
    let mut unit = cargo(&["test", "--workspace", "--exclude", "tests", "--no-fail-fast"]);
    unit.args(filter);
    let mut library = cargo(&["test", "-p", "tests", "--lib", "--bins", "--no-fail-fast"]);
    library.args(filter);
    let (alone, together): (Vec<_>, Vec<_>) =
        scenarios()?.into_iter().partition(|name| ALONE.contains(&name.as_str()));
    Ok(vec![unit, library, scenario_run(&together, "2", filter), scenario_run(&alone, "1", filter)])
}

fn scenario_run(names: &[String], threads: &str, filter: Option<&str>) -> Command {
    let mut run = cargo(&["test", "-p", "tests", "--no-fail-fast"]);
    for name in names {
        run.args(["--test", name]);
    }
    run.args(filter).args(["--", "--test-threads", threads]);
    run
}

fn scenarios() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("tests/tests").context("list tests/tests")? {
        let path = entry?.path();
        if path.extension().is_some_and(|is| is == "rs") || path.join("main.rs").exists() {
            let name = path.file_stem().context("a file's name")?;
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Runs a test runner, shows what it says, and adds up its closing lines. nextest speaks on standard
/// error and `cargo test` on standard output, so both go through one pipe, in their order.
fn count(command: &mut Command) -> Result<(Counts, bool)> {
    show(command)?;
    let (lines, write_end) = std::io::pipe()?;
    command.stdout(write_end.try_clone()?).stderr(write_end);
    let mut runner = command.spawn().context("start the test runner")?;
    // The command keeps the ends it gave away; without this the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut counts = Counts::default();
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(lines).split(b'\n') {
        let line = line?;
        counts += Counts::in_line(&String::from_utf8_lossy(&line)).unwrap_or_default();
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok((counts, runner.wait()?.success()))
}
