//! Trees that arrive at a real agent, from a source that does what each test says.
//!
//! The source is played by the test: the program is captured and ended before the agent is called,
//! because both are in one PID namespace here. Two real hosts are in the `tests` crate.

mod agent;
mod begun_anew;
mod copied;
mod flood;
mod held;
mod hooked;
mod missing;
mod policy;
mod program;
mod recorded;
mod source;

use agent::Agent;
use anyhow::Context as _;
use program::Program;
use protocol::Message;
use protocol::message::{Outcome, RoundEnd};
use recorded::{Memory, Recorded};
use source::Source;
use std::time::Duration;

type Result<T = ()> = anyhow::Result<T>;

/// A program that was taken down, an agent, and a source with a link to it.
struct Scene {
    program: Program,
    recorded: Recorded,
    agent: Agent,
    source: Source,
}

impl Scene {
    async fn new(memory: Memory) -> Result<Self> {
        Self::of(Program::start()?, memory).await
    }

    async fn of(program: Program, memory: Memory) -> Result<Self> {
        Self::at(program, memory, Agent::start()?).await
    }

    async fn at(mut program: Program, memory: Memory, agent: Agent) -> Result<Self> {
        let recorded = recorded::take_down(program.pid(), memory)?;
        program.reap()?;
        let source = Source::connect(&agent).await?;
        Ok(Self { program, recorded, agent, source })
    }

    /// Up to the point where only the permit is missing.
    async fn make_ready(&mut self) -> Result {
        let Self { source, recorded, .. } = self;
        source.hello().await?;
        source.offer(recorded).await?;
        source.stage(recorded).await?;
        source.open_bulk().await?;
        source.round(0, &recorded.records).await?;
        source.image(recorded).await?;
        source.expect("Ready").await?;
        Ok(())
    }

    /// The agent has nothing of a migration any more but the journal.
    fn agent_has_let_go(&self, before: (usize, usize)) -> Result {
        program::until("the agent to let go", || {
            let now = (self.agent.belongings().ok()?, self.agent.leftovers().ok()?);
            (now == (before, Vec::new())).then_some(())
        })
        .with_context(|| {
            let now = (self.agent.belongings(), self.agent.leftovers());
            format!("{now:?} and before {before:?}")
        })
    }
}

fn outcome(message: &Message) -> Option<Outcome> {
    match message {
        Message::Decided(decided) => Some(decided.outcome()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_arrives_with_all_of_its_memory() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.make_ready().await?;
    assert!(scene.program.is_traced()?, "it does not run before the permit");
    scene.source.handover().await?;
    assert_eq!(outcome(&scene.source.expect("Decided").await?), Some(Outcome::Running));
    scene.source.expect("Complete").await?;
    scene.program.goes_on()?;
    assert!(!scene.program.is_traced()?);
    scene.source.done().await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_runs_while_its_pages_come_by_fault_and_then_by_push() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    assert!(scene.recorded.missing.pages() > 300, "there is something to come later");
    scene.make_ready().await?;
    let faults = scene.source.serve_faults(&scene.recorded).await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    // The program looks at all of its memory in every turn.
    scene.program.goes_on()?;
    assert!(faults.answered() > 10);
    scene.source.push(1, &scene.recorded).await?;
    scene.source.expect("Complete").await?;
    scene.source.done().await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_nothing_of_a_tree_that_has_arrived() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    let before = Agent::start()?.belongings()?;
    scene.make_ready().await?;
    let faults = scene.source.serve_faults(&scene.recorded).await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    scene.source.push(1, &scene.recorded).await?;
    scene.source.expect("Complete").await?;
    scene.source.done().await?;
    drop(faults);
    scene.source.vanish();
    scene.agent_has_let_go(before)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_nothing_of_a_tree_that_was_discarded() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    let before = Agent::start()?.belongings()?;
    scene.make_ready().await?;
    scene.source.abort().await?;
    scene.source.expect("Decided").await?;
    scene.source.vanish();
    scene.agent_has_let_go(before)
}

/// Whatever the journal says then, it is what has become of the program.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_around_the_permit_keeps_to_what_it_decided() -> Result {
    for delay_us in [0, 300, 600, 900, 1300, 2000, 4000, 8000] {
        let mut scene = Scene::new(Memory::Later).await?;
        scene.make_ready().await?;
        scene.source.handover().await?;
        tokio::time::sleep(Duration::from_micros(delay_us)).await;
        scene.agent.kill_and_start_again()?;
        let mut again = scene.source.reconnect(&scene.agent).await?;
        again.inquire().await?;
        let decided = outcome(&again.expect("Decided").await?);
        if decided == Some(Outcome::Discarded) {
            scene.program.is_gone()?;
            continue;
        }
        let _faults = again.serve_faults(&scene.recorded).await?;
        again.open_bulk().await?;
        again.push(0, &scene.recorded).await?;
        again.expect("Complete").await?;
        scene.program.goes_on().with_context(|| format!("killed after {delay_us} us"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_pushed_is_asked_for() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.make_ready().await?;
    let _faults = scene.source.serve_faults(&scene.recorded).await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    scene.source.push_nothing(1).await?;
    scene.source.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_tree_is_gone_without_a_trace() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.make_ready().await?;
    scene.source.abort().await?;
    assert_eq!(outcome(&scene.source.expect("Decided").await?), Some(Outcome::Discarded));
    scene.program.is_gone()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_lost_before_the_permit_loses_nothing() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.make_ready().await?;
    scene.source.vanish();
    let mut again = scene.source.reconnect(&scene.agent).await?;
    again.inquire().await?;
    assert_eq!(outcome(&again.expect("Decided").await?), Some(Outcome::Discarded));
    scene.program.is_gone()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_starves_is_fed_by_a_source_that_comes_back() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    scene.source.vanish();
    let mut again = scene.source.reconnect(&scene.agent).await?;
    again.inquire().await?;
    assert_eq!(outcome(&again.expect("Decided").await?), Some(Outcome::Running));
    let missing = again.expect("Missing").await?;
    assert!(matches!(missing, Message::Missing(missing) if !missing.runs.is_empty()));
    let _faults = again.serve_faults(&scene.recorded).await?;
    again.open_bulk().await?;
    again.push(0, &scene.recorded).await?;
    again.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_in_the_lazy_phase_is_succeeded() -> Result {
    let mut scene = Scene::new(Memory::Later).await?;
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Decided").await?;
    scene.agent.kill_and_start_again()?;
    let mut again = scene.source.reconnect(&scene.agent).await?;
    again.inquire().await?;
    assert_eq!(outcome(&again.expect("Decided").await?), Some(Outcome::Running));
    again.expect("Missing").await?;
    let _faults = again.serve_faults(&scene.recorded).await?;
    again.open_bulk().await?;
    again.push(0, &scene.recorded).await?;
    again.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_before_the_permit_takes_the_stubs_with_it() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.make_ready().await?;
    scene.agent.kill_and_start_again()?;
    scene.program.is_gone()?;
    let mut again = scene.source.reconnect(&scene.agent).await?;
    again.inquire().await?;
    assert_eq!(outcome(&again.expect("Decided").await?), Some(Outcome::Discarded));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_remembered_for_ever() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Complete").await?;
    scene.source.vanish();
    scene.agent.kill_and_start_again()?;
    let mut again = scene.source.reconnect(&scene.agent).await?;
    again.inquire().await?;
    assert_eq!(outcome(&again.expect("Decided").await?), Some(Outcome::Running));
    again.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nobody_knows_is_discarded_and_stays_so() -> Result {
    let agent = Agent::start()?;
    let mut source = Source::connect(&agent).await?;
    source.inquire().await?;
    assert_eq!(outcome(&source.expect("Decided").await?), Some(Outcome::Discarded));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_pid_is_refused_by_name() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    let pid = scene.program.pid();
    let impostor = program::with_pid(pid)?;
    scene.source.hello().await?;
    scene.source.send_offer(&scene.recorded).await?;
    let Message::Refuse(refuse) = scene.source.expect("Refuse").await? else { unreachable!() };
    drop(impostor);
    let lines: Vec<String> = refuse.refusals.iter().map(ToString::to_string).collect();
    assert!(lines.iter().any(|line| line.contains(&format!("process {pid} "))), "{lines:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_talks_nonsense_harms_nobody_else() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    let mut fool = Source::connect_as_another(&scene.source).await?;
    fool.hello().await?;
    fool.send(Message::RoundEnd(RoundEnd::default())).await?;
    fool.is_let_go().await?;
    scene.make_ready().await?;
    scene.source.handover().await?;
    scene.source.expect("Complete").await?;
    scene.program.goes_on()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_unknown_space_ends_the_migration_and_not_the_agent() -> Result {
    let mut scene = Scene::new(Memory::AllAtOnce).await?;
    scene.source.hello().await?;
    scene.source.offer(&scene.recorded).await?;
    scene.source.stage(&scene.recorded).await?;
    scene.source.open_bulk().await?;
    let stray = recorded::Record::Data { space: 60_000, address: 0x1000, bytes: vec![1; 4096] };
    scene.source.begin_round(0).await?;
    scene.source.send_records(0, &[stray]).await?;
    let abort = scene.source.expect("Abort").await?;
    assert!(format!("{abort:?}").contains("space 60000"), "{abort:?}");
    tokio::time::timeout(Duration::from_secs(30), scene.source.expect("Decided")).await??;
    scene.program.is_gone()?;
    Ok(())
}
