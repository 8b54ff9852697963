//! The benchmark as a program: moves every load again and again, and says what was measured.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tests::bench::{Criu, LOADS, Load, Plan, Results, bench, markdown, page, text};

#[derive(Parser)]
struct Arguments {
    /// Three runs of each load instead of seven.
    #[arg(long)]
    quick: bool,
    /// So many runs of each.
    #[arg(long, conflicts_with = "quick")]
    runs: Option<u32>,
    /// Where CRIU was unpacked, to be measured beside.
    #[arg(long)]
    criu: Option<PathBuf>,
    /// Where bench.json, bench.html and bench.md go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Say the table in Markdown.
    #[arg(long)]
    markdown: bool,
    /// Measure nothing, and say again what an earlier run has left in its bench.json.
    #[arg(long, conflicts_with_all = ["quick", "runs", "criu", "loads"])]
    again: bool,
    /// Only these loads.
    loads: Vec<String>,
}

const RUNS: u32 = 7;
const QUICK_RUNS: u32 = 3;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let results = if arguments.again { kept(&arguments.out)? } else { measure(&arguments)? };
    let shown = if arguments.markdown { markdown(&results) } else { text(&results) };
    write!(io::stdout(), "{shown}")?;
    tell(&format!("All of it, with plots, is in {}.", arguments.out.join("bench.html").display()));
    let is_good = results.rows.iter().all(|row| row.failures.is_empty());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(arguments: &Arguments) -> Result<Results> {
    let plan = plan(arguments)?;
    fs::create_dir_all(&arguments.out).context("make the directory for the results")?;
    bench(&plan, tell, |so_far| keep(so_far, &arguments.out))
}

fn tell(line: &str) {
    // Nobody listens any more: it goes on all the same.
    let _ = writeln!(io::stderr(), "{line}");
}

fn plan(arguments: &Arguments) -> Result<Plan> {
    let runs = arguments.runs.unwrap_or(if arguments.quick { QUICK_RUNS } else { RUNS });
    ensure!(runs > 0, "no run measures nothing");
    Ok(Plan { runs, loads: loads(&arguments.loads)?, peer: peer(arguments.criu.as_deref())? })
}

/// All of them when none is named.
fn loads(names: &[String]) -> Result<Vec<&'static Load>> {
    if names.is_empty() {
        return Ok(LOADS.iter().collect());
    }
    let known = || LOADS.iter().map(|load| load.name).collect::<Vec<_>>().join(", ");
    let named = |name: &String| {
        let load = LOADS.iter().find(|load| load.name == name);
        load.with_context(|| format!("there is no load {name:?}; there are {}", known()))
    };
    names.iter().map(named).collect()
}

/// Where it does not run the benchmark goes on without it.
fn peer(top: Option<&Path>) -> Result<Option<Criu>> {
    let Some(top) = top else {
        writeln!(io::stderr(), "without a peer: `--vs criu` measures CRIU beside")?;
        return Ok(None);
    };
    match Criu::below(top) {
        Ok(criu) => Ok(Some(criu)),
        Err(error) => {
            writeln!(io::stderr(), "without CRIU, which does not run here: {error:#}")?;
            Ok(None)
        }
    }
}

fn kept(out: &Path) -> Result<Results> {
    let results = serde_json::from_slice(&fs::read(out.join("bench.json"))?)?;
    keep(&results, out)?;
    Ok(results)
}

fn keep(results: &Results, out: &Path) -> Result<()> {
    fs::write(out.join("bench.json"), serde_json::to_vec_pretty(results)?)?;
    fs::write(out.join("bench.html"), page(results))?;
    fs::write(out.join("bench.md"), markdown(results))?;
    Ok(())
}
