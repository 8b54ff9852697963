//! The operator's programs are run also by an agent that follows one which was killed.

use crate::*;

fn told(agent: &Agent, point: &str, count: usize) -> Result<Vec<String>> {
    program::until("the hook to be run", || {
        Some(agent.hook_calls(point)).filter(|calls| calls.len() >= count)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_says_that_the_tree_runs() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.agent.hook("running")?;
    let call = format!("running {}", scene.program.pid());
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    assert_eq!(told(&scene.agent, "running", 1)?.len(), 1);
    scene.agent.kill_and_start_again()?;
    assert_eq!(told(&scene.agent, "running", 2)?, [call.clone(), call]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_says_that_the_tree_was_discarded_and_which_it_was() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.agent.hook("discarded")?;
    scene.make_ready().await?;
    scene.agent.kill_and_start_again()?;
    assert_eq!(told(&scene.agent, "discarded", 1)?, [format!("discarded {}", scene.program.pid())]);
    Ok(())
}
