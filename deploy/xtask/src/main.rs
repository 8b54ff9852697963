//! The developer's command: `cargo xtask check`, `test`, `demo`, `faults`, `soak` and `bench`. It installs
//! what it needs and depends on none of the other crates, so that it runs on a machine where they
//! do not build yet.

mod bench;
mod check;
mod command;
mod criu;
mod demo;
mod faults;
mod fuzz;
mod guests;
mod hot_paths;
mod install;
mod packages;
mod summary;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks, tests and shows the project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format and lints, with warnings as errors: what a change is held against.
    Check {
        /// Also the dependencies (cargo deny), the fuzz targets, MIGRATE_FUZZ_SECONDS each (60),
        /// and the long runs of the tests.
        #[arg(long)]
        long: bool,
    },
    /// Build everything and run every test.
    Test {
        /// Only tests whose name contains this.
        filter: Option<String>,
        /// Longer runs: more repetitions, more seeds.
        #[arg(long)]
        long: bool,
        /// Get ready first for the tests between guests with other kernels (QEMU, Linux 6.12 and 6.1),
        /// which are skipped otherwise.
        #[arg(long)]
        vm: bool,
    },
    /// Every fault at every step of a move, and what is left of the tree afterwards.
    Faults {
        /// Only a representative part, the one that is among the tests.
        #[arg(long)]
        quick: bool,
        /// Only cells whose name contains one of these.
        names: Vec<String>,
    },
    /// Move programs to and fro under random faults.
    Soak {
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Of an earlier run, to have the same faults again.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Move a redis server between two hosts on this machine while a client writes to it.
    Demo {
        /// How much data the server holds, in MiB.
        #[arg(long, default_value_t = 256)]
        mib: u64,
    },
    /// Measure moves of many loads, and of how long programs stand still: target/bench/bench.html.
    /// Or the hot paths alone, or the wire.
    Bench(bench::Options),
}

fn main() -> Result<ExitCode> {
    std::env::set_current_dir(command::workspace()?)?;
    match Arguments::parse().task {
        Task::Check { long } => check::run(long),
        Task::Test { filter, long, vm } => {
            if vm {
                guests::prepare()?;
            }
            test::run(filter.as_deref(), long)
        }
        Task::Faults { quick, names } => faults::matrix(quick, &names),
        Task::Soak { minutes, seed } => faults::soak(minutes, seed),
        Task::Bench(options) => bench::run(&options),
        Task::Demo { mib } => demo::run(mib).map(|()| ExitCode::SUCCESS),
    }
}
