//! The bulk stream as a program: `bulk serve PORT`, `bulk download HOST:PORT PAUSE_MS`, `bulk upload …`,
//! and `bulk visit HOST:PORT...` for many short connections.

use anyhow::{Result, bail};
use std::io::{self, Write};
use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;
use tests::bulk::{Client, Direction, serve, visit};
use tests::on_sigterm;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port] => {
            // Of both protocols: who comes over IPv4 has a mapped address.
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port.parse()?))?;
            writeln!(io::stdout(), "listening")?;
            serve(&listener)
        }
        ["download", server, pause] => carry(Direction::Download, server, pause),
        ["upload", server, pause] => carry(Direction::Upload, server, pause),
        ["visit", ..] => {
            let is_over = on_sigterm::flag()?;
            Ok(writeln!(io::stdout(), "{}", visit(&arguments[1..], &is_over)?)?)
        }
        _ => bail!(
            "usage: bulk serve PORT | download|upload HOST:PORT PAUSE_MS | visit HOST:PORT..."
        ),
    }
}

fn carry(direction: Direction, server: &str, pause_ms: &str) -> Result<()> {
    let pause = Duration::from_millis(pause_ms.parse()?);
    let is_over = on_sigterm::flag()?;
    let client = Client::connect(server, |report| {
        Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?)
    })?;
    client.with_pause(pause).run(direction, &is_over)
}
