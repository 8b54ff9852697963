//! Real programs at work, ten times there and back (in a long run fifty), each proving its state after every move.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::build::Build;
use tests::host_init::Status;
use tests::hosts::{Host, TwoHosts};
use tests::redis::server::{self, RunningWriter};
use tests::scale::{repetitions, scaled};
use tests::workload::{SOURCES, Workload};
use tests::{go, place, say, wait};

/// Moves `pid` there and back, ten times, and has it prove itself after every move.
fn ten_times(
    hosts: &TwoHosts,
    pid: i32,
    options: &[&str],
    prove: impl Fn(&Host) -> Result<()>,
) -> Result<()> {
    for round in 1..=repetitions() {
        for (from, to) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)] {
            let moved = hosts.migrate(pid, from, to, options)?;
            let story = format!("round {round} to {}: {}", to.name(), moved.story());
            moved.success().and_then(|_| prove(to)).context(story)?;
        }
    }
    Ok(())
}

fn workload_ten_times(name: &str, arguments: &[&str]) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, name, arguments)?;
    ten_times(&hosts, workload.pid, &[], |host| workload.proves_itself(host))?;
    workload.stop(&hosts.a)
}

fn program_ten_times(name: &str, argv: &[&str]) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start_program(&hosts.a, name, argv, &[])?;
    workload.proves_itself(&hosts.a)?;
    ten_times(&hosts, workload.pid, &[], |host| workload.proves_itself(host))?;
    workload.stop(&hosts.a)
}

#[test]
fn five_hundred_threads_with_live_vector_registers() -> Result<()> {
    workload_ten_times("threads", &["500"])
}

#[test]
fn a_program_that_writes_all_over_1_gib_without_pause() -> Result<()> {
    workload_ten_times("writer", &[&scaled(1024, 16).to_string()])
}

#[test]
fn python_with_threads_and_children_joined_by_pipes() -> Result<()> {
    program_ten_times("python", &["/usr/bin/python3", &format!("{SOURCES}/pytree.py")])
}

#[test]
fn a_go_program() -> Result<()> {
    let Some(program) = go::program("routines")? else {
        return Ok(say::skip("real a_go_program", "there is no go (package golang-go)")?);
    };
    program_ten_times("routines", &[&program])
}

#[test]
fn make_with_four_jobs_that_compile_c() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let build = Build::start(&hosts, &hosts.a)?;
    ten_times(&hosts, build.pid, &[], |host| build.completes_another(host))?;
    build.stop(&hosts.a)
}

const VALUE_BYTES: &str = "16384";

#[test]
fn redis_whose_clients_come_back() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let redis = server::start(&hosts, &hosts.a)?;
    let keys = (scaled(512, 16) * 64).to_string();
    server::client(&hosts.a, &hosts.a, &["fill", &keys, VALUE_BYTES])?;
    let writer = RunningWriter::start(&hosts, &hosts.a)?;
    writer.goes_on()?;
    ten_times(&hosts, redis.pid, &["--tcp", "close"], |host| {
        writer.goes_on()?;
        server::client(&hosts.a, host, &["verify", &keys, VALUE_BYTES])
    })?;
    let (report, _) = writer.stop(&hosts.a)?;
    server::client(&hosts.a, &hosts.a, &["audit", &place::text(&writer.ledger)?])?;
    say::figure("redis clients", &serde_json::to_string(&report)?)?;
    hosts.a.signal(redis.pid, Signal::SIGTERM)?;
    let end = hosts.a.end_of(redis.pid, wait::PATIENCE)?;
    ensure!(matches!(end, Status::Exited(0) | Status::Unknown), "redis ended with {end:?}");
    Ok(())
}
