//! A service that starts slowly goes on from where it was stopped; and it starts normally, and says
//! why, whenever it cannot.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use tests::scale::scaled;
use tests::slow_start::{Answer, SlowStart};
use tests::{say, wait};

/// Of a start that nobody measures.
const FEW: u32 = 500;

fn has_all(name: &str) -> Result<bool> {
    if let Some(missing) = SlowStart::lacks() {
        let why = format!("there is no {missing} (packages openjdk-17-jdk-headless, python3)");
        say::skip(&format!("quick_start {name}"), &why)?;
        return Ok(false);
    }
    Ok(true)
}

fn is_stored(service: &SlowStart) -> Result<()> {
    let said = service.stop()?;
    ensure!(said.contains("from its image"), "{said}");
    ensure!(service.image().join("manifest").exists(), "there is no image");
    ensure!(service.processes("SlowStart")?.is_empty(), "it still runs");
    Ok(())
}

#[test]
fn a_java_server_goes_on_from_where_it_was_stopped() -> Result<()> {
    if !has_all("a_java_server_goes_on_from_where_it_was_stopped")? {
        return Ok(());
    }
    let service = SlowStart::new(scaled(30_000, FEW), "")?;
    let normal = service.start()?;
    normal.came_after_a_normal_start("there is no image")?;
    let mut quick = Vec::new();
    for question in 2..=4 {
        is_stored(&service)?;
        let answer = service.start()?;
        answer.came_from_the_image()?;
        ensure!(answer.question == question, "after {question} questions: {answer:?}");
        ensure!(!service.image().exists(), "an image that was used is still there");
        quick.push(answer.after_ms);
    }
    let figure = format!("{} ms, from its image {quick:?} ms", normal.after_ms);
    Ok(say::figure("first answer of a Java server after a normal start", &figure)?)
}

#[test]
fn it_starts_normally_after_a_crash_and_nothing_of_it_is_left_but_once() -> Result<()> {
    if !has_all("it_starts_normally_after_a_crash_and_nothing_of_it_is_left_but_once")? {
        return Ok(());
    }
    let service = SlowStart::new(FEW, "")?;
    service.start()?;
    is_stored(&service)?;
    service.start()?.came_from_the_image()?;
    let runner = service.processes("run")?;
    ensure!(runner.len() == 1, "{runner:?} run it");
    service.host().signal(runner[0], Signal::SIGKILL)?;
    let gone = || Ok(service.processes("SlowStart")?.is_empty().then_some(()));
    wait::until(wait::PATIENCE, || "the end of a service without a runner".into(), gone)?;
    service.start()?.came_after_a_normal_start("there is no image")?;
    let (runs, programs) = (service.processes("run")?, service.processes("SlowStart")?);
    ensure!(runs.len() == 1 && programs.len() == 1, "{runs:?} run {programs:?}");
    Ok(())
}

#[test]
fn an_image_is_stale_when_a_named_file_has_changed() -> Result<()> {
    if !has_all("an_image_is_stale_when_a_named_file_has_changed")? {
        return Ok(());
    }
    let service = SlowStart::new(FEW, "")?;
    service.start()?;
    is_stored(&service)?;
    service.change_its_file()?;
    service.start()?.came_after_a_normal_start("slow-start has changed")?;
    is_stored(&service)?;
    let said = service.discard()?;
    ensure!(said.contains("has no image any more"), "{said}");
    service.start()?.came_after_a_normal_start("there is no image")
}

/// Of each file of an image another byte.
#[test]
fn a_damaged_image_is_not_gone_on_from() -> Result<()> {
    if !has_all("a_damaged_image_is_not_gone_on_from")? {
        return Ok(());
    }
    for lazy in [true, false] {
        let service = SlowStart::new(FEW, &format!("lazy = {lazy}"))?;
        service.start()?;
        for file in ["manifest", "tree", "index", "pages"] {
            is_stored(&service)?;
            flip_all_from_the_middle(&service.image().join(file))?;
            let answer = answer_that_lasts(&service)?;
            answer.came_after_a_normal_start("image")?;
        }
    }
    Ok(())
}

/// Of an image that is read while the program runs already, some is found to be damaged only after
/// the first answer.
fn answer_that_lasts(service: &SlowStart) -> Result<Answer> {
    let answer = service.start()?;
    if !answer.story.contains("goes on from its image") {
        return Ok(answer);
    }
    wait::until(
        wait::PATIENCE,
        || "a normal start after all".into(),
        || {
            let story = service.log()?;
            let is_normal = story.contains("starts normally: ") && story.contains("ready: ");
            Ok(is_normal.then_some(Answer { question: 1, story, after_ms: answer.after_ms }))
        },
    )
}

fn flip_all_from_the_middle(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle..].iter_mut().for_each(|byte| *byte ^= 1);
    Ok(fs::write(path, bytes)?)
}

#[test]
fn every_start_is_from_the_same_image_when_that_is_asked_for() -> Result<()> {
    if !has_all("every_start_is_from_the_same_image_when_that_is_asked_for")? {
        return Ok(());
    }
    let service = SlowStart::new(FEW, "image = 'every-time'")?;
    service.start()?;
    is_stored(&service)?;
    for _ in 0..2 {
        let answer = service.start()?;
        answer.came_from_the_image()?;
        ensure!(answer.question == 2, "{answer:?}");
        is_stored(&service)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_stored_ends_normally_and_says_why() -> Result<()> {
    if !has_all("what_cannot_be_stored_ends_normally_and_says_why")? {
        return Ok(());
    }
    let service = SlowStart::new(FEW, "dump = ['--parent', '/nowhere']")?;
    service.start()?;
    let said = service.stop()?;
    ensure!(said.contains("its next start is a normal one"), "{said}");
    let story = service.log()?;
    ensure!(
        story.contains("is not stored, and ends normally: ") && story.contains("/nowhere"),
        "{story}"
    );
    service.start()?.came_after_a_normal_start("there is no image")
}

#[test]
fn systemd_understands_the_unit() -> Result<()> {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/migrate-service@.service");
    let text = fs::read_to_string(unit)?.replace("/usr/bin/migrate", "/bin/true");
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("migrate-service@example.service");
    fs::write(&copy, text)?;
    let verify = Command::new("systemd-analyze").args(["--man=no", "verify"]).arg(&copy).output();
    let Ok(verified) = verify else {
        return Ok(say::skip(
            "quick_start systemd_understands_the_unit",
            "there is no systemd-analyze",
        )?);
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    ensure!(verified.status.success() && said.trim().is_empty(), "{said}");
    Ok(())
}
