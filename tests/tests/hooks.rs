//! The operator's hooks: each is run at its point, and one that fails before the handover ends the
//! move with the program where it was.

use anyhow::{Result, ensure};
use std::fs;
use std::path::PathBuf;
use tests::hosts::{Host, TwoHosts};
use tests::moved::exit;
use tests::wait;
use tests::workload::Workload;

const SOURCE: &[&str] = &["begin", "before-freeze", "give", "moved", "kept"];
const DESTINATION: &[&str] = &["expect", "running", "discarded"];

struct Scene {
    hosts: TwoHosts,
    counter: Workload,
    said: PathBuf,
}

impl Scene {
    /// Every hook there is says that it was called, with what it was told.
    fn new() -> Result<Self> {
        let hosts = TwoHosts::with_agents()?;
        let counter = Workload::start(&hosts.a, "counter", &[])?;
        let said = hosts.shared().join("hooks");
        fs::write(&said, "")?;
        let scene = Self { hosts, counter, said };
        let tells = "echo $MIGRATE_HOOK $MIGRATE_PID $MIGRATE_DESTINATION";
        for (host, points) in [(&scene.hosts.a, SOURCE), (&scene.hosts.b, DESTINATION)] {
            for point in points {
                scene.hook(host, point, &format!("{tells} >> {}", scene.said.display()))?;
            }
        }
        Ok(scene)
    }

    fn hook(&self, host: &Host, point: &str, text: &str) -> Result<()> {
        let path = format!("/etc/migrate/hooks/{point}");
        host.write(&path, &format!("#!/bin/sh\n{text}\n"))?;
        host.run(&["chmod", "755", &path])?.success().map(drop)
    }

    /// Of each line the first word, once the last of these was said: that one is not waited for.
    fn called(&self, last: &str) -> Result<Vec<String>> {
        wait::until(
            wait::PATIENCE,
            || format!("the hook {last}"),
            || {
                let said = fs::read_to_string(&self.said)?;
                let words: Vec<String> =
                    said.lines().filter_map(|line| Some(line.split(' ').next()?.into())).collect();
                Ok(words.iter().any(|word| word == last).then_some(words))
            },
        )
    }
}

#[test]
fn each_is_called_at_its_point_and_knows_what_moves() -> Result<()> {
    let scene = Scene::new()?;
    let hosts = &scene.hosts;
    hosts.migrate(scene.counter.pid, &hosts.a, &hosts.b, &[])?.success()?;
    let mut called = scene.called("running")?;
    // Nobody waits for this one.
    called.retain(|point| point != "running");
    ensure!(called == ["begin", "expect", "before-freeze", "give", "moved"], "{called:?}");
    let said = fs::read_to_string(&scene.said)?;
    let begin = format!("begin {} hostb:7747", scene.counter.pid);
    ensure!(said.starts_with(&begin), "{said}");
    scene.counter.proves_itself(&hosts.b)
}

#[test]
fn one_that_fails_before_the_handover_ends_the_move() -> Result<()> {
    for (point, on_source) in
        [("begin", true), ("before-freeze", true), ("give", true), ("expect", false)]
    {
        let scene = Scene::new()?;
        let hosts = &scene.hosts;
        let host = if on_source { &hosts.a } else { &hosts.b };
        scene.hook(host, point, "echo the pool is full; exit 9")?;
        let moved = hosts.migrate(scene.counter.pid, &hosts.a, &hosts.b, &[])?;
        ensure!(moved.exit == exit::FAILED, "{}", moved.story());
        moved.expect_names(&[&format!("hooks/{point}"), "the pool is full", "runs_on source"])?;
        let called = scene.called("kept")?;
        ensure!(!called.iter().any(|called| called == "moved" || called == point), "{called:?}");
        scene.counter.proves_itself(&hosts.a)?;
    }
    Ok(())
}
