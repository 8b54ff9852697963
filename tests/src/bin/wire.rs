//! The profile of the wire as a program.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tests::bench::{Profile, WirePlan, profile, wire_markdown, wire_text};

#[derive(Parser)]
struct Arguments {
    /// Three runs of each instead of five.
    #[arg(long)]
    quick: bool,
    /// So many runs of each.
    #[arg(long, conflicts_with = "quick")]
    runs: Option<u32>,
    /// How much memory is carried, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u32,
    /// Where wire.json and wire.md go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Say the tables in Markdown.
    #[arg(long)]
    markdown: bool,
    /// Only what has one of these in its name, such as "MTU 9000", "bare link" or "late".
    names: Vec<String>,
}

const RUNS: u32 = 5;
const QUICK_RUNS: u32 = 3;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let plan = plan(&arguments)?;
    fs::create_dir_all(&arguments.out).context("make the directory for the results")?;
    let profile = profile(&plan, tell, |so_far| keep(so_far, &arguments.out))?;
    let shown = if arguments.markdown { wire_markdown(&profile) } else { wire_text(&profile) };
    write!(io::stdout(), "{shown}")?;
    let is_good = profile.failures().next().is_none();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(arguments: &Arguments) -> Result<WirePlan> {
    let runs = arguments.runs.unwrap_or(if arguments.quick { QUICK_RUNS } else { RUNS });
    ensure!(runs > 0 && arguments.mib > 0, "no run, or one without memory, measures nothing");
    let plan = WirePlan { runs, mib: arguments.mib, names: arguments.names.clone() };
    plan.check()?;
    Ok(plan)
}

fn tell(line: &str) {
    // Nobody listens any more: it goes on all the same.
    let _ = writeln!(io::stderr(), "{line}");
}

fn keep(profile: &Profile, out: &Path) -> Result<()> {
    fs::write(out.join("wire.json"), serde_json::to_vec_pretty(profile)?)?;
    fs::write(out.join("wire.md"), wire_markdown(profile))?;
    Ok(())
}
