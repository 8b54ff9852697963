//! The demonstration: a redis server with data moves from one host to another, and its address with
//! it, while clients keep writing to it and none of them loses its connection; afterwards every key is
//! looked at.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tests::host_init::Status;
use tests::hosts::{Host, SERVICE, SERVICE_V4, Started, TwoHosts};
use tests::moved::Moved;
use tests::redis::{CrowdReport, RunningCrowd, server};

#[derive(Parser)]
struct Arguments {
    /// How much data the server gets, in MiB.
    #[arg(long, default_value_t = 256)]
    mib: u64,
}

const VALUE_BYTES: u64 = 16 * 1024;
const CLIENTS: usize = 20;

fn main() -> Result<()> {
    let mib = Arguments::parse().mib;
    let keys = (mib * 1024 * 1024 / VALUE_BYTES).to_string();
    let data = [keys.as_str(), &VALUE_BYTES.to_string()].map(str::to_owned);

    say(&format!(
        "Three hosts on this machine: hosta (192.0.2.1) and hostb (192.0.2.2), each with an agent, and\n\
         one for clients. The server has an address of its own, {}, which is hosta's now.",
        SERVICE.v4
    ))?;
    let (hosts, clients) = TwoHosts::with_clients()?;
    let redis = server::start(&hosts, &hosts.a)?;
    say(&format!("redis-server runs on hosta as process {}; {mib} MiB of data go in.", redis.pid))?;
    server::client(&hosts.a, &hosts.a, &["fill", &data[0], &data[1]])?;
    let crowd = RunningCrowd::start(&clients, SERVICE.v4, CLIENTS)?;
    crowd.goes_on()?;
    say(&format!(
        "{CLIENTS} clients write, each over one connection for its whole life, and read back every write.",
    ))?;

    let shown = format!("migrate {} --to hostb --address {SERVICE_V4}", redis.pid);
    say(&format!("\n  hosta# {shown}"))?;
    let mark = crowd.mark()?;
    let moved = move_it(&hosts, redis.pid)?;
    crowd.goes_on()?;
    let stall_ms = crowd.longest_stall_ms(mark)?;
    ensure!(hosts.b.exists(redis.pid) && !runs(&hosts.a, redis.pid)?, "it is in the wrong place");

    say("\nOn hostb every key is looked at.")?;
    let report = crowd.stop(&clients)?;
    server::client(&hosts.b, &hosts.b, &["verify", &data[0], &data[1]])?;
    close(&moved, redis.pid, &keys, &report, stall_ms)
}

fn runs(host: &Host, pid: i32) -> Result<bool> {
    Ok(host.status(pid)? == Status::Running)
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Shows the command's events as they come, and its end.
fn move_it(hosts: &TwoHosts, pid: i32) -> Result<Moved> {
    let command = hosts.start_migrate(pid, &hosts.a, "hostb", &["--address", SERVICE_V4])?;
    let mut progress = Progress { shown: 0, is_terminal: io::stdout().is_terminal() };
    while hosts.a.status(command.pid)? == Status::Running {
        progress.show(&command)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    progress.show(&command)?;
    hosts.finish_migrate(&hosts.a, &command)?.success()
}

struct Progress {
    shown: usize,
    is_terminal: bool,
}

impl Progress {
    fn show(&mut self, command: &Started) -> Result<()> {
        let said = fs::read_to_string(&command.stdout)?;
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines().skip(self.shown) {
            self.shown += 1;
            let event: Value = serde_json::from_str(line).context("an event of migrate --json")?;
            if let Some(text) = text_of(&event) {
                say(&if self.is_terminal {
                    format!("  \x1b[2m{text}\x1b[0m")
                } else {
                    format!("  {text}")
                })?;
            }
        }
        Ok(())
    }
}

fn text_of(event: &Value) -> Option<String> {
    match event["event"].as_str()? {
        "phase" => Some(event["name"].as_str()?.to_owned()),
        "round" => Some(format!(
            "round {}: {} pages, {} MiB in {} ms; {} pages written meanwhile, predicted downtime {} ms",
            event["round"],
            event["pages"],
            event["bytes"].as_u64()? / (1 << 20),
            event["duration_ms"],
            event["dirty_pages"],
            event["predicted_ms"],
        )),
        _ => None,
    }
}

fn close(moved: &Moved, pid: i32, keys: &str, report: &CrowdReport, stall_ms: f64) -> Result<()> {
    let summary = moved.summary()?;
    say(&format!(
        "\nMoved. Process {pid} stood still for {} ms ({} rounds, {} MiB over the wire, {} ms in all).\n\
         None of the {CLIENTS} clients lost its connection, and none waited longer than {stall_ms:.0} ms for an answer.\n\
         All {keys} keys are there, and none of the clients' {} acknowledged writes is lost.",
        summary["downtime_ms"],
        summary["rounds"],
        summary["bytes_wire"].as_u64().unwrap_or(0) / (1 << 20),
        summary["total_ms"],
        report.acknowledged,
    ))
}
