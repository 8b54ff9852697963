//! How long the program itself stands still, by its own heartbeat, for little memory and for much;
//! and how much memory the agents need for it. Times are reported and not judged: they are the
//! machine's as much as ours. The agents' memory is ours, and judged.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::time::Duration;
use tests::heartbeat::{Report, last_report};
use tests::hosts::TwoHosts;
use tests::scale::scaled;
use tests::wait;
use tests::witness::Witness;
use tests::workload::Workload;
use tests::{moved::Moved, say};

const AGENT_KIB_MAX: u64 = 100 * 1024;

fn stands_still(mib: u32) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let heart = Workload::start(&hosts.a, "heartbeat", &[&mib.to_string()])?;
    hosts.a.signal(heart.pid, Signal::SIGUSR1)?;
    // The next report is of after the signal.
    std::thread::sleep(Duration::from_millis(300));
    let mut witness = Witness::begin()?;
    let moved = hosts.migrate(heart.pid, &hosts.a, &hosts.b, &[])?.success()?;
    let report = report_after_the_move(&heart)?;
    let gap = report.max_gap_ended_us.saturating_sub(report.max_gap_us)..report.max_gap_ended_us;
    let machine_us = witness.longest_us(&gap)?;
    drop(witness);
    let figures = figures(&report, &moved)?;
    let figures = format!("{figures}; {machine_us} us the machine itself stood still meanwhile");
    say::figure(&format!("downtime of {mib} MiB"), &figures)?;
    has_all_its_memory(&hosts, &heart).with_context(|| moved.story())?;
    let peak = moved.peak_kib.max(hosts.agent_peak_kib()?);
    say::figure(&format!("agents' memory for {mib} MiB"), &format!("{} MiB", peak / 1024))?;
    ensure!(peak < AGENT_KIB_MAX, "an agent had {peak} KiB resident: {}", moved.story());
    Ok(())
}

fn report_after_the_move(heart: &Workload) -> Result<Report> {
    let beats = last_report(&heart.said()?).context("no report")?.beats;
    wait::until(
        wait::PATIENCE,
        || "a report after the move".into(),
        || Ok(last_report(&heart.said()?).filter(|report| report.beats > beats + 1000)),
    )
}

fn figures(report: &Report, moved: &Moved) -> Result<String> {
    let summary = moved.summary()?;
    Ok(format!(
        "the program saw {} us, {} us of them in the freeze; migrate says {} ms after {} rounds, \
         freeze by step {}",
        report.max_gap_us,
        report.max_gap_within(moved.freeze_us()?),
        summary["downtime_ms"],
        summary["rounds"],
        summary["freeze_ms"]
    ))
}

fn has_all_its_memory(hosts: &TwoHosts, heart: &Workload) -> Result<()> {
    hosts.b.signal(heart.pid, Signal::SIGUSR2)?;
    let report = wait::until(
        wait::PATIENCE,
        || "a verification".into(),
        || Ok(last_report(&heart.said()?).filter(|report| report.verified > 0)),
    )?;
    ensure!(report.bad_word == -1, "word {} of its memory is wrong", report.bad_word);
    Ok(())
}

#[test]
fn with_64_mib() -> Result<()> {
    stands_still(64)
}

#[test]
fn with_1_gib() -> Result<()> {
    stands_still(scaled(1024, 64))
}

#[test]
fn with_4_gib() -> Result<()> {
    stands_still(scaled(4096, 64))
}
