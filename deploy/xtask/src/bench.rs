//! The benchmark, with everything it needs: a release build, and the peer if one is asked for.

use crate::{command, criu, hot_paths, install};
use anyhow::Result;
use clap::ValueEnum;
use std::process::{Command, ExitCode};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Three runs of each load instead of seven.
    #[arg(long)]
    quick: bool,
    /// Also by this program, in the same run on the same loads.
    #[arg(long)]
    vs: Option<Peer>,
    /// Say the table in Markdown, as for docs/performance.md.
    #[arg(long)]
    markdown: bool,
    /// The hot paths instead of moves: each in relation to a yardstick, beside docs/hot-paths.json.
    #[arg(long, conflicts_with_all = ["quick", "vs", "markdown", "loads"])]
    micro: bool,
    /// The wire instead of moves: plain TCP, the bare link and the pages of a move on several roads, and
    /// how long a program waits for a page: target/bench/wire.json.
    #[arg(long, conflicts_with_all = ["micro", "vs"])]
    wire: bool,
    /// Make what is measured the new docs/hot-paths.json.
    #[arg(long, requires = "micro")]
    save: bool,
    /// Only these loads, or what of the wire has these words in its name.
    loads: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Peer {
    Criu,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.micro {
        return hot_paths::run(options.save).map(|()| ExitCode::SUCCESS);
    }
    install::for_scenarios()?;
    let program = if options.wire { "target/release/wire" } else { "target/release/bench" };
    let mut bench = Command::new(program);
    bench.args(options.quick.then_some("--quick")).args(options.markdown.then_some("--markdown"));
    if let Some(Peer::Criu) = options.vs {
        match criu::unpacked() {
            Ok(top) => drop(bench.arg("--criu").arg(top)),
            Err(error) => command::say(&format!("CRIU cannot be had here: {error:#}"))?,
        }
    }
    let build = ["build", "--release", "--workspace", "--bins"];
    command::run(&mut command::cargo(&build))?;
    bench.args(&options.loads);
    // Some loads may have failed; what was measured is there all the same.
    command::show(&bench)?;
    let is_good = bench.status()?.success();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
