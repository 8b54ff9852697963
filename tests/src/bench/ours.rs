//! A move by `migrate`, measured.

use super::cost::{self, between_ms};
use super::load::Load;
use super::rate::{Done, Slowed};
use super::run::{Round, Run, steps};
use super::subject::{BEFORE, Scene};
use super::wire::{Sample, Watch};
use crate::moved::Moved;
use crate::witness::Witness;
use anyhow::{Context, Result};
use serde_json::Value;
use std::ops::Range;

pub(super) fn run(load: &Load) -> Result<Run> {
    let mut scene = Scene::prepare(load)?;
    let hosts = &scene.hosts;
    let agent = [*hosts.agent_pids().get(1).context("the agent of the destination")?];
    let before = cost::of_running(&hosts.b, &agent)?;
    let file = cost::file(hosts.shared(), "migrate");
    scene.begin()?;
    let hosts = &scene.hosts;
    let mut witness = Witness::begin()?;
    let watch = Watch::begin(&hosts.a)?;
    let moved = migrate(&scene, &cost::measuring(&file)?)?;
    let wire = watch.end()?;
    let measured = cost::read(&file)?;
    let machine_us = witness.longest_us(&(measured.began_us..measured.ended_us))?;
    drop(witness);
    let downtime = scene.downtime()?;
    let mut destination = cost::of_running(&hosts.b, &agent)?;
    destination.cpu_ms -= before.cpu_ms;
    scene.is_whole().with_context(|| moved.story())?;
    let frozen = moved.freeze_us()?;
    let rounds = moved.named("round").map(Round::read).collect::<Result<Vec<Round>>>()?;
    Ok(Run {
        downtime_ms: downtime.ms(),
        in_freeze_ms: downtime.within_ms(frozen.clone()),
        before_freeze_ms: downtime.within_ms(0..frozen.start),
        machine_ms: between_ms(0, machine_us),
        steps: steps(&moved.summary()?["freeze_ms"])?,
        total_ms: measured.ms(),
        last_page_ms: Some(between_ms(frozen.end, measured.ended_us)),
        wire_bytes: wire_bytes(load, &moved, &wire)?,
        source: measured.cost,
        destination,
        slowed: slowed(&scene.done()?, measured.began_us..frozen.start),
        rounds,
        wire,
        frozen_at_ms: between_ms(measured.began_us, frozen.start),
    })
}

fn migrate(scene: &Scene, measuring: &[String; 4]) -> Result<Moved> {
    let within = measuring.each_ref().map(String::as_str);
    let mut options = Vec::new();
    if let Some(address) = scene.address() {
        options.extend(["--address", address]);
    }
    let hosts = &scene.hosts;
    let command = hosts.start_migrate_within(&within, scene.pid, &hosts.a, "hostb", &options)?;
    hosts.finish_migrate(&hosts.a, &command)?.success()
}

/// While it is copied, until the last report before the freeze: the one after it tells of the freeze too.
fn slowed(done: &[Done], copied: Range<u64>) -> Option<Slowed> {
    let before = copied.start.checked_sub(u64::try_from(BEFORE.as_micros()).ok()?)?;
    let last = done.iter().rev().find(|one| one.at_us < copied.end)?;
    Slowed::of(done, before..copied.start, copied.start..last.at_us)
}

/// By the counters of the link; where clients use it too, by the word of `migrate`.
fn wire_bytes(load: &Load, moved: &Moved, wire: &[Sample]) -> Result<u64> {
    const PAGE_BYTES: u64 = 4096;
    if !load.program.is_redis() {
        return Ok(wire.last().map_or(0, |last| last.bytes));
    }
    let summary = moved.summary()?;
    let field = |name: &str| -> Result<u64> {
        let value: &Value = &summary[name];
        value.as_u64().with_context(|| format!("{name} in the summary"))
    };
    let late = field("lazy_fault_pages")? + field("lazy_pushed_pages")?;
    Ok(field("bytes_wire")? + late * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_is_not_counted_as_a_slow_down() {
        // A report every 25 ms, a unit every ms; frozen from 1.100 s to 1.300 s.
        let until_the_freeze = (0..=44).map(|n| Done { at_us: n * 25_000, work: n * 25 });
        let after_it = (0..=4).map(|n| Done { at_us: 1_312_500 + n * 25_000, work: 1112 + n * 25 });
        let done: Vec<Done> = until_the_freeze.chain(after_it).collect();
        let slowed = slowed(&done, 700_000..1_110_000).unwrap();
        assert!(slowed.percent().abs() < 0.1, "{slowed:?}");
    }
}
