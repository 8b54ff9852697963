//! `migrate check`: what stands against a move, found out without touching anything.

mod features;

use crate::attempt::{Attempt, new_id};
use crate::audience::Audience;
use crate::bulk::Moved;
use crate::cli::{Check, Move, MoveWishes, Moving, Speed, When};
use crate::codec::Compress;
use crate::connection::{Line, Peer};
use crate::ending::{Ending, Purpose};
use crate::hello;
use crate::inspection::{self, Looked};
use crate::news::{self, News};
use crate::output::Output;
use crate::place::Place;
use crate::report::Report;
use anyhow::Result;
use engine::inventory::Counting;
use engine::kinds::Rules;
use nix::unistd::gethostname;
use protocol::Message;
use protocol::limits::HELLO_WAIT;
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
    let (post, mut inbox) = news::queue();
    let mut line = Line::open(connection, new_id()?, 1, post, Moved::default()).await?;
    line.send(Message::Hello(ours.clone())).await?;
    let heard = tokio::time::timeout(HELLO_WAIT, inbox.recv()).await;
    line.close("it was only to be checked").await;
    match heard {
        Ok(Some(News::Heard { message: Message::Hello(theirs), .. })) => {
            let refusal = |mismatch: &Mismatch| mismatch.refusal(&theirs);
            agree(&ours, &theirs)
                .map(drop)
                .map_err(|found| Ending::Refused(found.iter().map(refusal).collect()))
        }
        Ok(Some(News::Lost { cause, .. })) => Err(Ending::Failed(vec![cause])),
        _ => Err(Ending::Failed(vec![format!("it did not say what it is within {HELLO_WAIT:?}")])),
    }
}
