//! Hosts that are not like this one: of another version, with another CPU, without a kind. The real
//! programs are told so by a fake at the other end of the line, and refuse.

use anyhow::{Result, ensure};
use tests::attempt::is_refused;
use tests::hosts::{CONFIG, TwoHosts};
use tests::moved::Moved;
use tests::peer::FakeDestination;
use tests::place;
use tests::workload::Workload;

/// Whatever the fake is, it would accept: that it is refused is the source's own doing.
fn refuses(workload: &str, character: &[&str], names: &[&str]) -> Result<Moved> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    let fake = FakeDestination::start(&hosts.b, character)?;
    let workload = Workload::start(&hosts.a, workload, &[])?;
    let moved = is_refused(&hosts, workload.pid, "hostb", names)?;
    let heard = fake.said()?;
    ensure!(heard.contains("heard Hello") && !heard.contains("heard Stage"), "{heard}");
    workload.stop(&hosts.a)?;
    Ok(moved)
}

#[test]
fn a_destination_of_a_later_version() -> Result<()> {
    let names = ["host hostb", "speaks protocol 7 to 9", "Upgrade this host"];
    refuses("counter", &["--protocol", "7", "9"], &names).map(drop)
}

#[test]
fn a_destination_of_an_earlier_version() -> Result<()> {
    let names = ["host hostb", "speaks protocol 0 to 0", "Upgrade the destination"];
    refuses("counter", &["--protocol", "0", "0"], &names).map(drop)
}

#[test]
fn a_destination_whose_cpu_lacks_features() -> Result<()> {
    let character = ["--without-feature", "sse2", "--without-feature", "fxsr"];
    refuses("counter", &character, &["host hostb", "sse2", "fxsr"]).map(drop)
}

#[test]
fn a_destination_that_would_cut_vector_registers() -> Result<()> {
    // x87 and SSE, as every x86-64 has them, and nothing beyond.
    refuses("threads", &["--xsave-features", "3"], &["host hostb", "0x3"]).map(drop)
}

#[test]
fn a_destination_that_does_not_know_a_kind_in_use() -> Result<()> {
    refuses("eventfd", &["--without-kind", "eventfd"], &["host hostb", "`eventfd`"]).map(drop)
}

#[test]
fn everything_about_a_host_stands_in_one_answer() -> Result<()> {
    let character =
        ["--without-feature", "sse2", "--xsave-features", "1", "--without-kind", "eventfd"];
    let moved = refuses("eventfd", &character, &["sse2", "0x1", "`eventfd`"])?;
    ensure!(moved.refusals().len() == 3, "{}", moved.story());
    Ok(())
}

/// It gets our versions and no more, the operator gets one line, and the next source is served.
#[test]
fn a_source_of_another_version_is_turned_away_and_the_agent_goes_on() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let program = place::program("fake-peer")?;
    let argv = [&*program, "source", "hostb", "--at", "192.0.2.2:7747", "--config", CONFIG];
    let argv = [&argv[..], &["--protocol", "7", "9"]].concat();
    let answers = hosts.a.run(&argv)?.success()?;
    ensure!(answers == "Hello\n", "the destination said {answers}");

    let log = hosts.agent_log(&hosts.b)?;
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    ensure!(warnings.len() == 1, "{log}");
    ensure!(warnings[0].contains("hosta speaks protocol 7 to 9"), "{log}");

    let workload = Workload::start(&hosts.a, "counter", &[])?;
    hosts.migrate(workload.pid, &hosts.a, &hosts.b, &[])?.success()?;
    workload.proves_itself(&hosts.b)?;
    workload.stop(&hosts.b)
}
