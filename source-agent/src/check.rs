//! `migrate check`: what stands against a move, found out without touching anything.

mod features;

use crate::attempt::{Attempt, new_id};
use crate::audience::Audience;
use crate::cli::{Check, Move, MoveWishes, Moving, Speed, When};
use crate::codec::Compress;
use crate::connection::{self, Peer};
use crate::ending::{Ending, Purpose};
use crate::greeting;
use crate::hello;
use crate::inspection::{self, Looked};
use crate::output::Output;
use crate::place::Place;
use crate::report::Report;
use anyhow::Result;
use engine::inventory::Counting;
use engine::kinds::Rules;
use nix::unistd::gethostname;
use protocol::version::{Mismatch, agree};
use std::path::Path;
use std::process::ExitCode;
use tokio::task::spawn_blocking;

pub(crate) async fn run(check: Check) -> Result<ExitCode> {
    let report = Report::new(Output::new(check.common.json), Purpose::Check);
    let found = match (check.pid, check.to.clone()) {
        (Some(pid), Some(to)) => return both(check, pid, to).await,
        (Some(pid), None) => tree(pid, check.rules.into(), check.moving.clone(), &report).await,
        (None, Some(to)) => host(to, &check.common.config).await,
        (None, None) => return this_host(check.common.json).await,
    };
    let ending = found.map_or_else(|ending| ending, |()| Ending::Movable);
    report.ends(&ending, "");
    Ok(ending.code().into())
}

async fn both(check: Check, pid: i32, to: Place) -> Result<ExitCode> {
    let audience = Audience::operator(check.common.json, Purpose::Check)?;
    let Check { common, state, rules, moving, .. } = check;
    let speed = Speed { bandwidth: None, compress: Compress::Auto };
    let (max_downtime, max_rounds, lazy) = (20, 30, When::Auto);
    let wishes = MoveWishes { common, state, max_downtime, max_rounds, lazy, speed, rules, moving };
    let attempt = Attempt { id: new_id()?, moving: Move { pid, to, wishes }, only_check: true };
    Ok(attempt.run(audience).await.code().into())
}

/// What this host alone can say of it.
async fn tree(pid: i32, rules: Rules, moving: Moving, report: &Report) -> Result<(), Ending> {
    let looking = spawn_blocking(move || inspection::look(pid, rules, Counting::Once, moving));
    let Looked { outcome, notes } = looking.await??;
    notes.iter().for_each(|note| report.note(&note.to_string()));
    outcome.map(drop).map_err(Ending::Refused)
}

/// What the kernel of this host has of all that we use.
async fn this_host(json: bool) -> Result<ExitCode> {
    let found = spawn_blocking(features::look).await?;
    let name = gethostname()?;
    Ok(features::say(&found, &name.to_string_lossy(), &Output::new(json)).into())
}

/// Whether the destination lets us in, and the two hosts could move anything at all.
async fn host(to: Place, config: &Path) -> Result<(), Ending> {
    let ours = spawn_blocking(hello::of_this_host).await??;
    let connection = Peer::new(to, config)?.dial().await?;
    let heard = greeting::exchange(&connection, new_id()?, &ours).await;
    connection::close(&connection, "it was only to be checked").await;
    let theirs = heard?;
    let refusal = |mismatch: &Mismatch| mismatch.refusal(&theirs);
    let agreed = agree(&ours, &theirs).map(drop);
    agreed.map_err(|found| Ending::Refused(found.iter().map(refusal).collect()))
}
