//! Two guests to try things by hand: `guests 6.12 6.1 COMMAND…` runs a shell command on both.

use anyhow::{Context as _, Result};
use std::io::{self, Write};
use std::time::Duration;
use tests::guests::Kernel;
use tests::hosts::TwoHosts;

/// However long it takes, without KVM.
const LIMIT: Duration = Duration::from_secs(1200);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [a, b, command] = &arguments[..] else { anyhow::bail!("guests SERIES SERIES COMMAND") };
    let find = |name: &str| {
        let series = if name == "6.1" { "6.1" } else { "6.12" };
        Kernel::find(series)?.context("not ready: cargo xtask test --vm")
    };
    let hosts = TwoHosts::of_guests(&find(a)?, &find(b)?)?;
    let mut out = io::stdout();
    for host in [&hosts.a, &hosts.b] {
        let said = host.run_within(LIMIT, &["sh", "-c", command], &[])?;
        writeln!(out, "{} {:?}\n{}{}", host.name(), said.status, said.stdout, said.stderr)?;
    }
    Ok(())
}
