//! Every workload there and back, with its memory coming early, late, and as the agents see fit.

use anyhow::{Context, Result, ensure};
use tests::footprint::children;
use tests::hosts::{Host, TwoHosts};
use tests::wait;
use tests::workload::{self, Workload};

macro_rules! moves {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn goes_there_and_back() -> anyhow::Result<()> {
                super::there_and_back(stringify!($name), &["--lazy", "auto"])
            }

            #[test]
            fn goes_with_every_page_lazy() -> anyhow::Result<()> {
                super::there_and_back(stringify!($name), &["--lazy", "always", "--max-rounds", "1"])
            }

            #[test]
            fn goes_with_no_page_lazy() -> anyhow::Result<()> {
                super::there_and_back(stringify!($name), &["--lazy", "never"])
            }
        }
    )* };
}

tests::every_workload! { moves }

fn there_and_back(name: &str, options: &[&str]) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    workload::make_ready(&hosts.b)?;
    let workload = Workload::start(&hosts.a, name, &[])?;
    workload.proves_itself(&hosts.a)?;
    go(&hosts, &workload, &hosts.a, &hosts.b, options).context("there")?;
    go(&hosts, &workload, &hosts.b, &hosts.a, options).context("back")?;
    workload.stop(&hosts.a)
}

fn go(
    hosts: &TwoHosts,
    workload: &Workload,
    from: &Host,
    to: &Host,
    options: &[&str],
) -> Result<()> {
    let descendants = children(from, workload.pid)?;
    let moved = hosts.migrate(workload.pid, from, to, options)?;
    let story = moved.story();
    moved.success().with_context(|| format!("the workload said: {:?}", workload.said()))?;
    workload.proves_itself(to).with_context(|| story.clone())?;
    // Of what comes and goes only the first process is sure to be in both places.
    let expected = if workload.name == "churn" { vec![] } else { descendants };
    for pid in expected.into_iter().chain([workload.pid]) {
        // Killed and reaped when the command ends, but by its parent and not by the command.
        from.end_of(pid, wait::PATIENCE).with_context(|| story.clone())?;
        ensure!(to.exists(pid), "process {pid} is not on {}: {story}", to.name());
    }
    Ok(())
}
