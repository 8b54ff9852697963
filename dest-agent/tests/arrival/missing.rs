//! Pages that do not come, and connections that bring none.

use crate::recorded::Memory;
use crate::{Result, Scene};
use protocol::Message;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// It must neither read zeros nor wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_whose_source_does_not_have_its_pages_dies_with_a_reason() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.make_ready().await?;
    let _faults = scene.source.serve_nothing().await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    let Message::Abort(abort) = scene.source.expect("Abort").await? else { unreachable!() };
    assert!(abort.failure.to_string().contains("the source has no page at 0x"), "{abort:?}");
    scene.program.is_gone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_fault_connection_takes_the_place_of_a_broken_one_at_once() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.make_ready().await?;
    for _ in 0..20 {
        scene.source.serve_faults(&scene.recorded).await?.cut();
    }
    let broken = scene.source.serve_faults(&scene.recorded).await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    broken.cut();
    let _faults = scene.source.serve_faults(&scene.recorded).await?;
    let goes_on = tokio::task::spawn_blocking(move || scene.program.goes_on());
    tokio::time::timeout(SOON, goes_on).await??
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_read_what_is_asked_for_loses_its_connection_at_once() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.make_ready().await?;
    let closed = scene.source.turn_a_deaf_ear().await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    tokio::time::timeout(SOON, closed).await??;
    let _faults = scene.source.serve_faults(&scene.recorded).await?;
    scene.program.goes_on()
}
