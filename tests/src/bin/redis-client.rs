//! The redis client as a program, to be run inside a host.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tests::on_sigterm;
use tests::redis::{Connection, Ledger, Writer, fill, run_crowd, verify_filled};

#[derive(Parser)]
struct Arguments {
    /// Where a server may be found, as HOST:PORT.
    #[arg(long = "at", required = true)]
    addresses: Vec<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Set COUNT keys of BYTES each.
    Fill { count: u64, bytes: usize },
    /// Check the keys that `fill` has set.
    Verify { count: u64, bytes: usize },
    /// Raise counters until SIGTERM; what was acknowledged goes to the file LEDGER.
    Write { ledger: PathBuf },
    /// Check the counters against the file LEDGER.
    Audit { ledger: PathBuf },
    /// Let COUNT clients write and check until SIGTERM, each with one connection that is lost when
    /// the server does not answer for PATIENCE_S seconds.
    Crowd { count: usize, patience_s: u64 },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let connect = || Connection::open(&arguments.addresses[0]);
    match &arguments.action {
        Action::Fill { count, bytes } => fill(&mut connect()?, *count, *bytes),
        Action::Verify { count, bytes } => verify_filled(&mut connect()?, *count, *bytes),
        Action::Write { ledger } => write(arguments.addresses.clone(), ledger),
        Action::Audit { ledger } => {
            let ledger: Ledger = serde_json::from_slice(&fs::read(ledger)?)?;
            ledger.verify(&mut connect()?)
        }
        Action::Crowd { count, patience_s } => {
            let patience = Duration::from_secs(*patience_s);
            let is_over = on_sigterm::flag()?;
            run_crowd(&arguments.addresses[0], patience, *count, &is_over, |report| {
                Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?)
            })
        }
    }
}

/// Every 100 ms one report goes to standard output.
fn write(addresses: Vec<String>, ledger: &Path) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(100);
    let is_over = on_sigterm::flag()?;
    let mut writer = Writer::new(addresses);
    let mut reported = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        writer.step();
        if reported.elapsed() >= INTERVAL {
            reported = Instant::now();
            writeln!(io::stdout(), "{}", serde_json::to_string(&writer.report)?)?;
        }
    }
    writeln!(io::stdout(), "{}", serde_json::to_string(&writer.report)?)?;
    fs::write(ledger, serde_json::to_vec(&writer.ledger)?).context("write the ledger")
}
