//! A prefork server keeps sharing its memory: the destination needs no more than the source did, and
//! what is shared travels once.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::time::Duration;
use tests::footprint::children;
use tests::hosts::{Host, Started, TwoHosts};
use tests::moved::{Moved, exit};
use tests::scale::scaled;
use tests::wait;
use tests::workload::Workload;
use tests::{place, say};

/// What the tree occupies, each page counted once however many share it, in KiB.
fn occupied_kib(host: &Host, pid: i32) -> Result<u64> {
    let rollup = host.read(&format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let mut all = kib.with_context(|| format!("no Pss_Anon of process {pid}: {rollup}"))?;
    for child in children(host, pid)? {
        all += occupied_kib(host, child)?;
    }
    Ok(all)
}

struct Server {
    hosts: TwoHosts,
    workload: Workload,
}

impl Server {
    fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    fn start_with(more: &[&str]) -> Result<Self> {
        let hosts = TwoHosts::with_agents()?;
        let size = mebibytes().to_string();
        let arguments: Vec<&str> = [size.as_str()].iter().chain(more).copied().collect();
        let workload = Workload::start(&hosts.a, "prefork", &arguments)?;
        workload.proves_itself(&hosts.a)?;
        Ok(Self { hosts, workload })
    }

    fn occupied_kib(&self, host: &Host) -> Result<u64> {
        occupied_kib(host, self.workload.pid)
    }

    fn go(&self, from: &Host, to: &Host, options: &[&str]) -> Result<Moved> {
        let moved = self.hosts.migrate(self.workload.pid, from, to, options)?.success()?;
        from.end_of(self.workload.pid, wait::PATIENCE)?;
        self.workload.proves_itself(to).with_context(|| moved.story())?;
        Ok(moved)
    }
}

fn mebibytes() -> u32 {
    scaled(64, 16)
}

/// Options with which copying the parent alone takes four seconds.
fn slowly(lazy: &str) -> [String; 4] {
    let megabits = mebibytes() * 8 / 4;
    ["--bandwidth".into(), megabits.to_string(), "--lazy".into(), lazy.into()]
}

/// Waits until a move that goes on has said so.
fn says(command: &Started, words: &str) -> Result<()> {
    let said = || Ok(std::fs::read_to_string(&command.stdout)?.contains(words).then_some(()));
    wait::until(wait::PATIENCE, || words.into(), said)
}

/// With the pages that came when it ran there already.
fn wire_kib(moved: &Moved) -> Result<u64> {
    let summary = moved.summary()?;
    let figure = |name: &str| summary[name].as_u64().with_context(|| format!("no {name}"));
    let late_pages = figure("lazy_fault_pages")? + figure("lazy_pushed_pages")?;
    Ok(figure("bytes_wire")? / 1024 + late_pages * 4)
}

/// There and back, because the second time it is a tree that we have made.
fn shares_there_and_back(options: &[&str]) -> Result<()> {
    let server = Server::start()?;
    let (a, b) = (&server.hosts.a, &server.hosts.b);
    let here = server.occupied_kib(a)?;
    for (from, to) in [(a, b), (b, a)] {
        let moved = server.go(from, to, options)?;
        let (there, wire) = (server.occupied_kib(to)?, wire_kib(&moved)?);
        let name = format!("prefork {} to {}", options.join(" "), to.name());
        let figures = format!("{here} KiB at first, {there} KiB there, {wire} KiB sent");
        say::figure(&name, &figures)?;
        ensure!(there * 10 <= here * 12, "{figures}: {}", moved.story());
        ensure!(wire * 10 <= here * 12, "{figures}: {}", moved.story());
    }
    server.workload.stop(a)
}

#[test]
fn what_forks_share_is_shared_again_and_travels_once() -> Result<()> {
    shares_there_and_back(&["--lazy", "auto"])
}

#[test]
fn what_forks_share_is_shared_again_with_no_page_lazy() -> Result<()> {
    shares_there_and_back(&["--lazy", "never"])
}

/// What was one page is one page again, also of an image whose pages are in its parent.
#[test]
fn what_forks_share_is_shared_again_from_a_directory() -> Result<()> {
    let server = Server::start()?;
    let (a, b, pid) = (&server.hosts.a, &server.hosts.b, server.workload.pid);
    let [first, second] = ["first", "second"].map(|name| server.hosts.shared().join(name));
    let (first, second) = (place::text(&first)?, place::text(&second)?);
    let here = server.occupied_kib(a)?;
    let increment = ["--parent", first.as_str()];
    let ways: [(_, _, _, &[&str]); 2] = [(a, b, &first, &[]), (b, a, &second, &increment)];
    for (from, to, directory, options) in ways {
        from.dump(pid, directory, options)?.success()?;
        from.end_of(pid, wait::PATIENCE)?;
        to.restore(directory, &[])?.success()?;
        server.workload.proves_itself(to)?;
        let there = server.occupied_kib(to)?;
        let figures = format!("{here} KiB at first, {there} KiB from {directory}");
        say::figure("prefork in a directory", &figures)?;
        ensure!(there * 10 <= here * 12, "{figures}");
    }
    server.workload.stop(a)
}

/// With one round there is none left after the parent's pages have landed. Then every process has
/// its memory for itself, and above all nothing of it is left for the freeze.
#[test]
fn with_a_single_round_nothing_is_held_back_for_the_freeze() -> Result<()> {
    let server = Server::start()?;
    let (a, b) = (&server.hosts.a, &server.hosts.b);
    let here = server.occupied_kib(a)?;
    let moved = server.go(a, b, &["--max-rounds", "1", "--lazy", "never"])?;
    let first = moved.named("round").next().context("no round")?;
    let pages = first["pages"].as_u64().context("no pages")?;
    ensure!(pages * 4 > 5 * here, "{here} KiB at first: {}", moved.story());
    server.workload.stop(b)
}

/// What is forked while pages are copied is forked again as well, in the round that finds it.
#[test]
fn what_forks_in_mid_copy_is_shared_too() -> Result<()> {
    let server = Server::start_with(&["late"])?;
    let (a, b, pid) = (&server.hosts.a, &server.hosts.b, server.workload.pid);
    ensure!(children(a, pid)?.is_empty(), "it has children already");
    let options = slowly("never");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let command = server.hosts.start_migrate(pid, a, b.name(), &options)?;
    says(&command, r#""name":"rounds""#)?;
    std::thread::sleep(Duration::from_secs(2));
    a.signal(pid, Signal::SIGUSR1)?;
    wait::until(
        wait::PATIENCE,
        || "children".into(),
        || Ok((children(a, pid)?.len() == 8).then_some(())),
    )?;
    let moved = server.hosts.finish_migrate(a, &command)?.success()?;
    server.workload.proves_itself(b).with_context(|| moved.story())?;
    let there = server.occupied_kib(b)?;
    let figures = format!("{} MiB forked in mid-copy, {there} KiB there", mebibytes());
    say::figure("prefork late", &figures)?;
    ensure!(there < u64::from(mebibytes()) * 1024 * 2, "{figures}: {}", moved.story());
    server.workload.stop(b)
}

/// A tree that stays has been looked at and read, and shares what it shared.
#[test]
fn what_stays_after_all_still_shares_its_memory() -> Result<()> {
    let server = Server::start()?;
    let (a, b, pid) = (&server.hosts.a, &server.hosts.b, server.workload.pid);
    let before = server.occupied_kib(a)?;
    let options = slowly("auto");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let command = server.hosts.start_migrate(pid, a, b.name(), &options)?;
    // The parent is there, and its children are on their way.
    says(&command, r#""event":"round""#)?;
    std::thread::sleep(Duration::from_millis(500));
    a.signal(command.pid, Signal::SIGINT)?;
    let moved = server.hosts.finish_migrate(a, &command)?;
    ensure!(moved.exit == exit::CANCELLED, "{}", moved.story());
    ensure!(moved.named("round").count() > 0, "no round was over: {}", moved.story());
    server.workload.proves_itself(a).with_context(|| moved.story())?;
    let after = server.occupied_kib(a)?;
    ensure!(after * 10 <= before * 11, "{before} KiB before, {after} KiB after");
    server.workload.stop(a)
}
