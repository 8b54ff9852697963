//! Real programs at work, there and back.

use super::{by_directory, directory};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tests::build::Build;
use tests::hosts::TwoHosts;
use tests::redis::server;
use tests::scale::scaled;
use tests::workload::{SOURCES, Workload};
use tests::{go, say, wait};

fn at_work(workload: &Workload, hosts: &TwoHosts) -> Result<()> {
    let first = directory(hosts, "first")?;
    let second = directory(hosts, "second")?;
    by_directory(workload, &hosts.a, &hosts.b, &first, [&[], &["--lazy"]]).context("there")?;
    let increment = ["--parent", first.as_str()];
    by_directory(workload, &hosts.b, &hosts.a, &second, [&increment, &[]]).context("back")?;
    workload.stop(&hosts.a)
}

#[test]
fn five_hundred_threads_come_back() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "threads", &[&scaled(500, 50).to_string()])?;
    at_work(&workload, &hosts)
}

#[test]
fn python_comes_back_with_its_children() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let argv = ["/usr/bin/python3", &format!("{SOURCES}/pytree.py")];
    at_work(&Workload::start_program(&hosts.a, "python", &argv, &[])?, &hosts)
}

#[test]
fn a_go_program_comes_back() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let Some(program) = go::program("routines")? else {
        return Ok(say::skip("images a_go_program", "there is no go (package golang-go)")?);
    };
    at_work(&Workload::start_program(&hosts.a, "routines", &[&program], &[])?, &hosts)
}

#[test]
fn a_build_comes_back() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let build = Build::start(&hosts, &hosts.a)?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(build.pid, &directory, &[])?.success()?;
    hosts.a.end_of(build.pid, wait::PATIENCE)?;
    hosts.b.restore(&directory, &["--lazy"])?.success()?;
    build.completes_another(&hosts.b)?;
    build.stop(&hosts.b)
}

#[test]
fn redis_comes_back_with_all_of_its_keys() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let redis = server::start(&hosts, &hosts.a)?;
    let keys = (scaled(256, 16) * 64).to_string();
    server::client(&hosts.a, &hosts.a, &["fill", &keys, "16384"])?;
    for (round, (from, to)) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)].iter().enumerate() {
        let directory = directory(&hosts, &round.to_string())?;
        from.dump(redis.pid, &directory, &[])?.success()?;
        from.end_of(redis.pid, wait::PATIENCE)?;
        to.restore(&directory, &["--lazy"])?.success()?;
        server::client(&hosts.a, to, &["verify", &keys, "16384"])?;
    }
    hosts.a.signal(redis.pid, Signal::SIGTERM)?;
    hosts.a.end_of(redis.pid, wait::PATIENCE).map(drop)
}
