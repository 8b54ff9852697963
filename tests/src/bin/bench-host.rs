//! What the benchmark runs on its hosts: `bench-host measure FILE -- COMMAND…`, and both ends of plain TCP and
//! of the bare link.

use anyhow::{Result, bail};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use tests::bench::{
    echo, flood, keep_to_half, link_flood, link_sink, measure, ping, receive_files, send_files,
    sink,
};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["measure", file, "--", ..] => {
            let status = measure(Path::new(file), &arguments[3..])?;
            return Ok(ExitCode::from(u8::try_from(status)?));
        }
        ["half", which, "--", program, ..] => {
            keep_to_half(which)?;
            return Err(Command::new(program).args(&arguments[4..]).exec().into());
        }
        ["link-sink", address, config] => link_sink(address, Path::new(config), say_listening)?,
        ["link-flood", host, address, config, mib] => {
            say_seconds(link_flood(host, address, Path::new(config), mib.parse()?)?)?;
        }
        ["sink", address] => sink(&listen(address)?)?,
        ["flood", address, mib] => say_seconds(flood(address, mib.parse()?)?)?,
        ["echo", address] => echo(&listen(address)?)?,
        ["ping", address, count] => {
            let mut times = ping(address, count.parse()?)?;
            times.sort();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            say_seconds(median)?;
        }
        ["receive", directory, address] => receive_files(Path::new(directory), &listen(address)?)?,
        ["send", directory, address] => send_files(Path::new(directory), address)?,
        _ => bail!("bench-host is started by the benchmark, not by hand"),
    }
    Ok(ExitCode::SUCCESS)
}

fn listen(address: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    say_listening()?;
    Ok(listener)
}

fn say_listening() -> Result<()> {
    Ok(writeln!(io::stdout(), "listening")?)
}

fn say_seconds(time: std::time::Duration) -> Result<()> {
    Ok(writeln!(io::stdout(), "{}", time.as_secs_f64())?)
}
