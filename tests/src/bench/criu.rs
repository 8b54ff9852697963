//! A move by CRIU, as its users script it: dump, copy, restore.
//!
//! The images are in memory (tmpfs) on both hosts. Rounds of pre-dump need soft-dirty pages, which not every
//! kernel has; they are left out. Where the program has connections its address goes first and comes back
//! before the restore, so that nobody answers for it meanwhile.

use super::cost::{self, Cost, between_ms, measuring};
use super::load::Load;
use super::run::{Run, Step};
use super::subject::Scene;
use super::wire::Watch;
use crate::hosts::{Host, Started};
use crate::place;
use crate::wait;
use crate::witness::Witness;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The program with its own loader and libraries, as `cargo xtask bench --vs criu` unpacks it.
#[derive(Clone, Debug)]
pub struct Criu {
    /// Loader, libraries and program.
    start: [String; 4],
    pub version: String,
}

const IMAGES: &str = "/tmp/images";
const PORT: u16 = 7800;
const LIMIT: Duration = Duration::from_secs(300);

impl Criu {
    /// Unpacked below this directory. An error says what is the matter with it here.
    pub fn below(top: &Path) -> Result<Self> {
        // The hosts' programs run elsewhere.
        let top = std::path::absolute(top)?;
        let libraries = top.join("usr/lib/x86_64-linux-gnu");
        let found: [PathBuf; 2] =
            [libraries.join("ld-linux-x86-64.so.2"), top.join("usr/sbin/criu")];
        for file in &found {
            ensure!(file.exists(), "{} is not there", file.display());
        }
        let [loader, program] = [place::text(&found[0])?, place::text(&found[1])?];
        let start = [loader, "--library-path".into(), place::text(&libraries)?, program];
        let criu = Self { start, version: String::new() };
        criu.say("check").context("criu check")?;
        let version = criu.say("--version")?;
        let version = version.lines().next().and_then(|line| line.strip_prefix("Version: "));
        Ok(Self { version: version.context("the version of criu")?.into(), ..criu })
    }

    fn say(&self, what: &str) -> Result<String> {
        let output = Command::new(&self.start[0]).args(&self.start[1..]).arg(what).output()?;
        let [said, complaint] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ensure!(output.status.success(), "{}: {said}{complaint}", output.status);
        Ok(said)
    }

    pub(super) fn run(&self, load: &Load) -> Result<Run> {
        let mut scene = Scene::prepare(load)?;
        scene.begin()?;
        let files = Files::of(scene.hosts.shared());
        let destination = self.start_destination(&scene, &files)?;
        let mut witness = Witness::begin()?;
        let watch = Watch::begin(&scene.hosts.a)?;
        let source = self.start_source(&scene, &files)?;
        let (a, b) = (&scene.hosts.a, &scene.hosts.b);
        finish(a, &source, "dump.log")?;
        finish(b, &destination, "restore.log")?;
        let wire = watch.end()?;
        let built = cpu_ms_of_tree(b, scene.pid)?;
        let downtime_ms = scene.downtime()?.ms();
        scene.is_whole()?;
        let [dump, send, restore] = files.read()?;
        let machine_us = witness.longest_us(&(dump.began_us..restore.ended_us))?;
        let sent = wire.last().map_or(0, |last| last.bytes);
        Ok(Run {
            downtime_ms,
            in_freeze_ms: None,
            before_freeze_ms: None,
            machine_ms: between_ms(0, machine_us),
            steps: vec![
                step("dump", dump.ms()),
                step("copy", send.ms()),
                step("restore", restore.ms()),
            ],
            total_ms: between_ms(dump.began_us, restore.ended_us),
            last_page_ms: None,
            wire_bytes: if load.program.is_redis() { size_of(b)? } else { sent },
            source: both(dump.cost, send.cost),
            // What is restored builds itself: that is time of its processes.
            destination: Cost { cpu_ms: restore.cost.cpu_ms + built, ..restore.cost },
            slowed: None,
            rounds: Vec::new(),
            wire,
            frozen_at_ms: 0.0,
        })
    }

    /// Takes the images in, and restores as soon as they are there.
    fn start_destination(&self, scene: &Scene, files: &Files) -> Result<Started> {
        let (host, address) = (&scene.hosts.b, place_of(&scene.hosts.b));
        let receive = [&place::program("bench-host")?, "receive", IMAGES, &address].join(" ");
        let restore =
            self.command(&files.restore, &["restore", "-d", "-o", "restore.log"], scene)?;
        let take =
            scene.address().map_or(String::new(), |address| format!("{} && ", ip("add", address)));
        let started = host.spawn(&["sh", "-c", &format!("{receive} && {take}{restore}")])?;
        let said = || Ok(fs::read_to_string(&started.stdout)?.contains("listening").then_some(()));
        wait::until(wait::PATIENCE, || format!("who takes images: {}", started.story()), said)?;
        Ok(started)
    }

    fn start_source(&self, scene: &Scene, files: &Files) -> Result<Started> {
        let (pid, address) = (scene.pid.to_string(), place_of(&scene.hosts.b));
        let make = format!("mkdir {IMAGES}");
        let give =
            scene.address().map_or(String::new(), |address| format!("{} && ", ip("del", address)));
        let dump = self.command(&files.dump, &["dump", "-t", &pid, "-o", "dump.log"], scene)?;
        let measuring = measuring(&files.send)?.join(" ");
        let send = [&measuring, &place::program("bench-host")?, "send", IMAGES, &address].join(" ");
        scene.hosts.a.spawn(&["sh", "-c", &format!("{make} && {give}{dump} && {send}")])
    }

    fn command(&self, file: &Path, action: &[&str], scene: &Scene) -> Result<String> {
        let connections = ["--tcp-established", "--network-lock", "skip"];
        let more = if scene.address().is_some() { &connections[..] } else { &[] };
        let words = [&measuring(file)?.join(" "), &self.start.join(" "), &action.join(" ")];
        let common = format!("-D {IMAGES} --manage-cgroups=ignore");
        Ok(format!("{} {common} {}", words.map(String::as_str).join(" "), more.join(" ")))
    }
}

/// Where the commands of a run leave what they have cost.
struct Files {
    dump: PathBuf,
    send: PathBuf,
    restore: PathBuf,
}

impl Files {
    fn of(directory: &Path) -> Self {
        let [dump, send, restore] =
            ["dump", "send", "restore"].map(|name| cost::file(directory, name));
        Self { dump, send, restore }
    }

    fn read(&self) -> Result<[cost::Measured; 3]> {
        Ok([cost::read(&self.dump)?, cost::read(&self.send)?, cost::read(&self.restore)?])
    }
}

fn step(name: &str, ms: f64) -> Step {
    Step { name: name.into(), ms }
}

/// One after the other.
fn both(one: Cost, other: Cost) -> Cost {
    Cost { cpu_ms: one.cpu_ms + other.cpu_ms, peak_kib: one.peak_kib.max(other.peak_kib) }
}

fn place_of(host: &Host) -> String {
    format!("{}:{PORT}", host.address().v4)
}

/// `address` as `migrate --address` takes it.
fn ip(what: &str, address: &str) -> String {
    format!("ip addr {what} {}", address.replace('@', " dev "))
}

/// What its log says belongs to a failure.
fn finish(host: &Host, command: &Started, log: &str) -> Result<()> {
    let errors = || {
        let said = host.read(&format!("{IMAGES}/{log}")).unwrap_or_default();
        let errors: Vec<&str> = said.lines().filter(|line| line.contains("Error")).collect();
        format!("{log} says {errors:?}")
    };
    host.finish(command, LIMIT)?.success().map(drop).with_context(errors)
}

fn size_of(host: &Host) -> Result<u64> {
    let files = fs::read_dir(host.path(IMAGES))?;
    files.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Of the tree's processes, by what their scheduler has counted.
fn cpu_ms_of_tree(host: &Host, pid: i32) -> Result<f64> {
    let mut sum = 0.0;
    for task in fs::read_dir(host.path(&format!("/proc/{pid}/task")))? {
        let task = task?.path();
        sum += on_cpu_ms(&fs::read_to_string(task.join("schedstat"))?)?;
        let children = fs::read_to_string(task.join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            sum += cpu_ms_of_tree(host, child.parse()?)?;
        }
    }
    Ok(sum)
}

/// The first number of a schedstat: nanoseconds on a processor.
fn on_cpu_ms(schedstat: &str) -> Result<f64> {
    let first = schedstat.split_whitespace().next().context("a schedstat")?;
    Ok(Duration::from_nanos(first.parse()?).as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_processor_is_the_first_number() {
        assert!((on_cpu_ms("2500000 77 3\n").unwrap() - 2.5).abs() < 1e-9);
        assert!(on_cpu_ms("").is_err());
    }

    #[test]
    fn an_address_is_taken_apart_for_ip() {
        assert_eq!(ip("add", "192.0.2.50/24@eth0"), "ip addr add 192.0.2.50/24 dev eth0");
    }

    #[test]
    fn what_is_not_there_is_said() {
        let error = Criu::below(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("ld-linux"), "{error:#}");
    }
}
