//! What a policy lets in, and what it does not, from sources that say what they bring and that lie.

use crate::agent::Agent;
use crate::program::Program;
use crate::recorded::Memory;
use crate::source::Source;
use crate::{Result, Scene};
use engine::memory::mapping_image::BackingImage;
use protocol::Message;
use std::fs;
use std::time::Duration;

const STRICT: &str = r#"
    [default]
    users = [1000]
    groups = [1000]
    capabilities = ["net_bind_service"]
    executables = ["/opt"]
    memory_mib_max = 0
    threads_max = 0
"#;

async fn scene(policy: &str) -> Result<Scene> {
    let agent = Agent::with_policy(policy)?;
    Scene::at(Program::start()?, Memory::AllAtOnce, agent).await
}

async fn refusals(scene: &mut Scene) -> Result<String> {
    scene.source.hello().await?;
    scene.source.send_offer(&scene.recorded).await?;
    let Message::Refuse(refuse) = scene.source.expect("Refuse").await? else { unreachable!() };
    Ok(refuse.refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_policy_forbids_is_said_in_one_answer() -> Result {
    let mut scene = scene(STRICT).await?;
    let pid = scene.program.pid();
    let text = refusals(&mut scene).await?;
    for part in [
        format!("process {pid} runs as user 0"),
        format!("process {pid} is in group 0"),
        format!("process {pid} may have CAP_CHOWN"),
        "perl lies where the destination's policy allows none".to_owned(),
        "MiB of memory, and the destination's policy allows 0".to_owned(),
        "the tree has 1 threads, and the destination's policy allows 0".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_its_own_section_is_not_bound_by_the_default() -> Result {
    let agent = Agent::with_policy("")?;
    agent.write_policy(&format!(
        "{STRICT}[source.\"{}\"]\nusers = [\"*\"]\ngroups = [\"*\"]\n\
        capabilities = [\"*\"]\nexecutables = [\"/\"]\nmemory_mib_max = 4096\nthreads_max = 9\n",
        agent.source.fingerprint()
    ))?;
    let mut scene = Scene::at(Program::start()?, Memory::AllAtOnce, agent).await?;
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Complete").await?;
    scene.program.goes_on()
}

async fn lie(policy: &str, tell: impl FnOnce(&mut Scene)) -> Result<String> {
    let mut scene = scene(policy).await?;
    tell(&mut scene);
    let refused = scene.make_ready().await.expect_err("a lie has come through");
    scene.program.is_gone()?;
    Ok(format!("{refused:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_privileges_are_found_in_the_image() -> Result {
    let told = lie("[default]\nusers = [1000]\n", |scene| {
        let held = scene.recorded.inventory.privileges.iter_mut();
        held.for_each(|held| held.users = vec![1000; 4]);
    });
    let told = told.await?;
    assert!(told.contains("runs as user 0, and the destination's policy"), "{told}");
    let told = lie("[default]\ncapabilities = []\n", |scene| {
        scene.recorded.inventory.privileges.clear();
    });
    let told = told.await?;
    assert!(told.contains("may have CAP_CHOWN"), "{told}");
    Ok(())
}

/// Where the program writes, whose path a lie has changed nothing of.
fn home_of(scene: &Scene) -> String {
    let turns = scene.program.turns();
    turns.parent().expect("it is in a directory").display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_opens_files_beneath_the_paths_of_a_policy_and_nowhere_else() -> Result {
    let mut scene = scene("[default]\npaths = [\"/srv\"]\n").await?;
    let turns = scene.program.turns().display().to_string();
    // To be told the size of a file that it may not open, it says a wrong one.
    fs::write(&turns, "something longer than it was")?;
    let text = refusals(&mut scene).await?;
    assert!(
        text.contains(&format!("the file {turns} lies where the destination's policy")),
        "{text}"
    );
    assert!(!text.contains("bytes on the destination"), "{text}");
    assert!(!text.contains("perl") && !text.contains("/dev/null"), "{text}");

    let agent = Agent::with_policy("")?;
    let program = Program::start()?;
    let mut scene = Scene::at(program, Memory::AllAtOnce, agent).await?;
    let paths = format!("[default]\npaths = [\"{}\"]\n", home_of(&scene));
    scene.agent.write_policy(&paths)?;
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_not_announced_is_found_before_it_is_opened() -> Result {
    let told = lie("[default]\npaths = [\"/srv\"]\n", |scene| {
        scene.recorded.inventory.outline = None;
    });
    let told = told.await?;
    assert!(
        told.contains("/turns (final phase): it lies where the destination's policy allows none"),
        "{told}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_not_announced_is_found_before_it_is_mapped() -> Result {
    let told = lie("[default]\npaths = [\"/\"]\n", |scene| {
        let policy = format!("[default]\npaths = [\"{}\"]\n", home_of(scene));
        scene.agent.write_policy(&policy).expect("the policy is written");
        let mappings = scene.recorded.layout.processes.iter_mut().flat_map(|one| &mut one.mappings);
        let file = mappings.filter_map(|mapping| match &mut mapping.backing {
            Some(BackingImage::File(file)) => Some(file),
            _ => None,
        });
        file.for_each(|file| file.path = b"/etc/shadow".to_vec());
    });
    let told = told.await?;
    assert!(
        told.contains(
            "/etc/shadow (stage phase): it lies where the destination's policy allows none"
        ),
        "{told}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_one_line_of_the_log_with_all_that_an_operator_needs() -> Result {
    let mut scene = scene(STRICT).await?;
    let pid = scene.program.pid();
    refusals(&mut scene).await?;
    let log = scene.agent.log()?;
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in [
        scene.agent.source.fingerprint().to_string(),
        "migration=".to_owned(),
        format!("root={pid}"),
        format!("process {pid} runs as user 0"),
        "the tree has 1 threads".to_owned(),
    ] {
        assert!(lines[0].contains(&part), "{part}: {}", lines[0]);
    }
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.make_ready().await?;
    let log = scene.agent.log()?;
    let key = scene.agent.source.fingerprint().to_string();
    let is_told = |line: &&str| line.contains("INFO") && line.contains("accepted");
    let accepted: Vec<&str> = log.lines().filter(is_told).collect();
    assert!(accepted.len() == 1 && accepted[0].contains(&key), "{log}");
    assert!(!log.contains("sources are shown"), "nothing has changed: {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_read_is_one_line_of_the_log() -> Result {
    let agent = Agent::with_policy("")?;
    agent.write("authorized_hosts", "garbage\n")?;
    let told = Source::connect(&agent).await.err().expect("nobody is let in");
    assert!(format!("{told:#}").contains("configuration is broken"), "{told:#}");
    // The line may come a little after the answer.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let log = agent.log()?;
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains("INFO")).collect();
    assert!(lines.len() == 1 && lines[0].contains("authorized_hosts, line 1"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_tree_than_was_announced_is_found_when_it_comes() -> Result {
    let told = lie("[default]\nmemory_mib_max = 1\n", |scene| {
        scene.recorded.inventory.memory_bytes = 0;
    });
    let told = told.await?;
    assert!(told.contains("MiB of memory, and the destination's policy allows 1"), "{told}");
    let told = lie("[default]\nthreads_max = 0\n", |scene| {
        scene.recorded.inventory.layout = Some(engine::image::Layout::default());
    });
    let told = told.await?;
    assert!(told.contains("has 1 threads, and the destination's policy allows 0"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_a_mistake_admits_nobody_and_names_the_line() -> Result {
    let agent = Agent::with_policy("")?;
    agent.write_policy("[default]\nuser = [1000]\n")?;
    let mut scene = Scene::at(Program::start()?, Memory::AllAtOnce, agent).await?;
    let text = refusals(&mut scene).await?;
    assert!(text.contains("the destination cannot read its policy"), "{text}");
    assert_eq!(scene.agent.log_lines("line 2")?, 1);
    Ok(())
}
