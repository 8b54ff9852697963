//! Two hosts to try things by hand: makes them, says how to enter them, and ends with its input.
//!
//! With `--agents` both hosts know each other and run `dest-agent`.

use anyhow::Result;
use std::io::{self, Read, Write};
use tests::hosts::{CONFIG, TwoHosts};

fn main() -> Result<()> {
    let with_agents = std::env::args().any(|argument| argument == "--agents");
    let hosts = if with_agents { TwoHosts::with_agents()? } else { TwoHosts::new()? };
    let mut out = io::stdout();
    for host in [&hosts.a, &hosts.b] {
        writeln!(out, "{} {} nsenter -t {} -a", host.name(), host.init_pid(), host.init_pid())?;
    }
    writeln!(out, "shared directory {}", hosts.shared().display())?;
    writeln!(out, "configuration in {CONFIG} on both; end the input (Ctrl-D) to end the hosts")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
