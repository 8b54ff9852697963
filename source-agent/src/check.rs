//! `migrate check`: what stands against a move, found out without touching anything.

use crate::cli::{Check, Move, MoveWishes, Speed, When};
use crate::codec::Compress;
use crate::connection::{Peer, Place};
use crate::ending::Ending;
use crate::inspection::{self, Looked};
use crate::output::Output;
use crate::report::Report;
use crate::run::{Attempt, run as attempt};
use crate::{hello, news};
use anyhow::Result;
use protocol::version::agree;
use protocol::{Message, Refusal};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) async fn run(check: Check) -> Result<ExitCode> {
    let ending = match (check.pid, check.to.clone()) {
        (Some(pid), Some(to)) => return Ok(attempt(both(check, pid, to)).await),
        (Some(pid), None) => tree(&check, pid).await?,
        (None, Some(to)) => host(to, &check.common.config).await?,
        (None, None) => this_host().await?,
    };
    let report = Report::new(Output::new(check.common.json));
    report.ends(&ending, "");
    Ok(ending.code())
}

fn both(check: Check, pid: i32, to: Place) -> Attempt {
    let Check { common, state, rules, .. } = check;
    let speed = Speed { bandwidth: None, compress: Compress::Auto };
    let (max_downtime, max_rounds, lazy) = (20, 30, When::Auto);
    let wishes = MoveWishes { common, state, max_downtime, max_rounds, lazy, speed, rules };
    Attempt { moving: Move { pid, to, wishes }, only_check: true }
}

async fn tree(check: &Check, pid: i32) -> Result<Ending> {
    let rules = check.rules.into();
    let looked = tokio::task::spawn_blocking(move || inspection::look(pid, rules)).await?;
    let output = Report::new(Output::new(check.common.json));
    Ok(match looked {
        Ok(Looked { outcome, notes }) => {
            notes.iter().for_each(|note| output.note(&note.to_string()));
            outcome.map_or_else(Ending::Refused, |_| Ending::Movable)
        }
        Err(error) => Ending::failed(&error),
    })
}

/// Whether pages can be tracked here at all.
async fn this_host() -> Result<Ending> {
    let hello = tokio::task::spawn_blocking(hello::of_this_host).await?;
    let hello = match hello {
        Ok(hello) => hello,
        Err(error) => return Ok(Ending::failed(&error)),
    };
    let tracks = hello.host.features.iter().any(|feature| feature.ends_with("-tracking"));
    if tracks {
        return Ok(Ending::Movable);
    }
    let reason = "can track writes neither by soft-dirty pages nor by write protection";
    let advice = "Use a kernel with CONFIG_MEM_SOFT_DIRTY, or Linux 6.7 or later.";
    Ok(Ending::Refused(vec![Refusal::new(format!("host {}", hello.host.hostname), reason, advice)]))
}

/// Whether the destination knows us, we know it, and both could move anything at all.
async fn host(to: Place, config: &Path) -> Result<Ending> {
    let ours = tokio::task::spawn_blocking(hello::of_this_host).await??;
    let peer = Peer::new(to, config)?;
    let connection = match peer.dial().await {
        Ok(connection) => connection,
        Err(error) => return Ok(Ending::failed(&error)),
    };
    let (post, mut inbox) = news::queue();
    let id = crate::run::new_id()?;
    let mut line =
        crate::connection::Line::open(connection, id, 1, post, crate::bulk::Moved::default())
            .await?;
    line.send(Message::Hello(ours.clone())).await?;
    let heard = tokio::time::timeout(protocol::limits::HELLO_WAIT, inbox.recv()).await;
    line.close("it was only to be checked").await;
    Ok(match heard {
        Ok(Some(news::News::Heard { message: Message::Hello(theirs), .. })) => {
            match agree(&ours, &theirs) {
                Ok(_) => Ending::Movable,
                Err(found) => Ending::Refused(
                    found.iter().map(|mismatch| mismatch.refusal(&theirs)).collect(),
                ),
            }
        }
        Ok(Some(news::News::Lost { cause, .. })) => Ending::Failed(vec![cause]),
        _ => Ending::Failed(vec![no_hello(protocol::limits::HELLO_WAIT)]),
    })
}

fn no_hello(waited: Duration) -> String {
    format!("the destination did not say what it is within {waited:?}")
}
