//! Offers of a tree whose ids are taken by another migration of it, and offers that go no further.

use crate::recorded::Memory;
use crate::source::Source;
use crate::{Result, Scene, outcome};
use protocol::Message;
use protocol::message::Outcome;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_taken_in_again_at_once_when_its_first_source_was_killed() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    let recorded = &scene.recorded;
    Source::dies_after(&scene.agent, async |source: &mut Source| {
        source.hello().await?;
        source.offer(recorded).await?;
        source.stage(recorded).await
    })?;
    assert!(scene.program.exists(), "its stub holds the id");
    let begun = Instant::now();
    scene.make_ready().await?;
    assert!(begun.elapsed() < Duration::from_secs(14), "not after the link's idle timeout");
    scene.source.handover().await?;
    scene.source.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_led_is_named_and_not_discarded() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.make_ready().await?;
    let mut other = Source::connect_as_another(&scene.source).await?;
    other.hello().await?;
    other.send_offer(&scene.recorded).await?;
    let Message::Refuse(refuse) = other.expect("Refuse").await? else { unreachable!() };
    let lines: Vec<String> = refuse.refusals.iter().map(ToString::to_string).collect();
    let name = format!("migration {} of this source", scene.source.id);
    assert!(lines.iter().any(|line| line.contains(&name)), "{lines:?}");
    scene.source.handover().await?;
    scene.source.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_leaves_nothing_in_the_journal() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.source.hello().await?;
    scene.source.offer(&scene.recorded).await?;
    scene.source.abort().await?;
    assert_eq!(outcome(&scene.source.expect("Decided").await?), Some(Outcome::Discarded));
    assert_eq!(scene.agent.journal()?, Vec::<String>::new());
    // A tree that got any further leaves its line.
    let mut other = Source::connect_as_another(&scene.source).await?;
    other.hello().await?;
    other.offer(&scene.recorded).await?;
    other.stage(&scene.recorded).await?;
    assert_eq!(scene.agent.journal()?, [other.id.to_string()]);
    Ok(())
}
