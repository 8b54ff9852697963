//! After a move nothing of us is left: no tracer, no descriptor, no mapping, no blocked signal, and
//! the process is who it was.

use anyhow::{Context, Result};
use tests::footprint::Footprint;
use tests::hosts::TwoHosts;
use tests::workload::{self, Workload};

fn leaves_no_trace(name: &str, options: &[&str]) -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    workload::make_ready(&hosts.b)?;
    let workload = Workload::start(&hosts.a, name, &[])?;
    workload.proves_itself(&hosts.a)?;
    let before = Footprint::settled(&hosts.a, workload.pid)?;
    let moved = hosts.migrate(workload.pid, &hosts.a, &hosts.b, options)?.success()?;
    workload.proves_itself(&hosts.b).with_context(|| moved.story())?;
    before.expect_again(&hosts.b, workload.pid).with_context(|| moved.story())?;
    workload.stop(&hosts.b)
}

macro_rules! no_trace {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn looks_as_before() -> anyhow::Result<()> {
                super::leaves_no_trace(stringify!($name), &["--lazy", "auto"])
            }

            #[test]
            fn looks_as_before_when_its_pages_came_late() -> anyhow::Result<()> {
                super::leaves_no_trace(stringify!($name), &["--lazy", "always", "--max-rounds", "1"])
            }
        }
    )* };
}

tests::every_steady_workload! { no_trace }

/// A second move finds nothing that the first one left behind, also in what one look cannot see.
#[test]
fn five_moves_look_as_none() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "threads", &[])?;
    let before = Footprint::settled(&hosts.a, workload.pid)?;
    let mut places = [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)].into_iter().cycle();
    for (from, to) in places.by_ref().take(5) {
        hosts.migrate(workload.pid, from, to, &[])?.success()?;
        workload.proves_itself(to)?;
    }
    before.expect_again(&hosts.b, workload.pid)?;
    workload.stop(&hosts.b)
}
