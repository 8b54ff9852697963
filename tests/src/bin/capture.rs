//! The packet capture as a program, to be run inside a host: `capture INTERFACE...`. It says `hears`,
//! then a line a packet, until SIGTERM.

use anyhow::Result;
use std::io::{self, BufWriter, Write};
use tests::on_sigterm;

fn main() -> Result<()> {
    let interfaces: Vec<String> = std::env::args().skip(1).collect();
    let is_over = on_sigterm::flag()?;
    // A write for each packet would be slower than the packets.
    let mut out = BufWriter::new(io::stdout());
    out.write_all(b"hears\n")?;
    tests::capture::run(&interfaces, &is_over, |passed| {
        match passed {
            None => out.flush()?,
            Some(passed) => writeln!(out, "{}", serde_json::to_string(&passed)?)?,
        }
        Ok(())
    })
}
