//! Every workload into a directory and back: to another host with all of its memory, and back again
//! before its memory was read, from an increment.

mod afterwards;
mod connections;
mod copies;
mod elsewhere;
mod failures;
mod files;
mod programs;

use anyhow::{Context as _, Result};
use tests::hosts::{Host, TwoHosts};
use tests::workload::{self, Workload};
use tests::{place, wait};

macro_rules! comes_back {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn comes_back_from_a_directory() -> anyhow::Result<()> {
                super::there_and_back(stringify!($name))
            }
        }
    )* };
}

tests::every_workload! { comes_back }

fn there_and_back(name: &str) -> Result<()> {
    let hosts = TwoHosts::new()?;
    workload::make_ready(&hosts.a)?;
    workload::make_ready(&hosts.b)?;
    let workload = Workload::start(&hosts.a, name, &[])?;
    workload.proves_itself(&hosts.a)?;
    let first = directory(&hosts, "first")?;
    let second = directory(&hosts, "second")?;
    by_directory(&workload, &hosts.a, &hosts.b, &first, [&[], &[]]).context("there")?;
    let increment = ["--parent", first.as_str()];
    by_directory(&workload, &hosts.b, &hosts.a, &second, [&increment, &["--lazy"]])
        .context("back")?;
    workload.stop(&hosts.a)
}

fn directory(hosts: &TwoHosts, name: &str) -> Result<String> {
    place::text(&hosts.shared().join(name))
}

/// `options` of the dump and of the restore.
fn by_directory(
    workload: &Workload,
    from: &Host,
    to: &Host,
    directory: &str,
    options: [&[&str]; 2],
) -> Result<()> {
    from.dump(workload.pid, directory, options[0])?.success().context("dump")?;
    from.end_of(workload.pid, wait::PATIENCE)?;
    to.restore(directory, options[1])?.success().context("restore")?;
    workload.proves_itself(to)
}

#[test]
fn ten_times_in_a_row() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "writer", &["16"])?;
    for round in 0..10 {
        let directory = directory(&hosts, &round.to_string())?;
        let lazy: &[&str] = if round % 2 == 0 { &["--lazy"] } else { &[] };
        by_directory(&workload, &hosts.a, &hosts.a, &directory, [&[], lazy])
            .with_context(|| format!("round {round}"))?;
    }
    workload.stop(&hosts.a)
}
