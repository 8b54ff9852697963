//! Sources that are let in and then stall or flood: each loses its connection, and nobody else.

use crate::recorded::Memory;
use crate::source::Source;
use crate::{Result, Scene};
use std::time::Duration;

/// The destination waits ten seconds for a first word.
const GIVEN_UP: Duration = Duration::from_secs(16);

async fn others_go_on(mut scene: Scene) -> Result {
    // The first one has waited too long for its first word as well.
    scene.source = Source::connect(&scene.agent).await?;
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_half_a_word_loses_the_connection() -> Result {
    let scene = Scene::new(Memory::AllAtOnce).await?;
    let silent = Source::dial(&scene.agent).await?;
    let slow = Source::dial(&scene.agent).await?;
    let dripping = slow.drip_half_a_head();
    let ended = async { tokio::join!(silent.is_closed(), slow.is_closed(), dripping) };
    tokio::time::timeout(GIVEN_UP, ended).await?;
    let silent = scene.agent.log_lines("without a first word")?;
    let slow = scene.agent.log_lines("did not say in time what it is for")?;
    assert_eq!(silent + slow, 2, "a line each");
    others_go_on(scene).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_streams_without_end_loses_the_connection() -> Result {
    let scene = Scene::new(Memory::AllAtOnce).await?;
    let flooder = Source::dial(&scene.agent).await?;
    let opened = tokio::time::timeout(GIVEN_UP, flooder.open_streams(10_000)).await?;
    assert!(opened < 1000, "{opened} streams were opened");
    assert_eq!(scene.agent.log_lines("more streams than a migration has")?, 1);
    drop(flooder);
    others_go_on(scene).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_without_end_is_answered_without_a_queue() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    for _ in 0..3000 {
        scene.source.inquire().await?;
    }
    let _faults = scene.source.serve_faults(&scene.recorded).await?;
    scene.source.push(1, &scene.recorded).await?;
    scene.source.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dials_without_end_is_held_to_a_number_of_connections() -> Result {
    let scene = Scene::new(Memory::AllAtOnce).await?;
    let mut connections = Vec::new();
    for _ in 0..40 {
        connections.push(Source::dial(&scene.agent).await?);
    }
    let last = connections.pop().expect("forty");
    tokio::time::timeout(Duration::from_secs(30), last.is_closed()).await?;
    assert!(scene.agent.log_lines("connections of one source")? >= 1);
    drop(connections);
    others_go_on(scene).await
}
